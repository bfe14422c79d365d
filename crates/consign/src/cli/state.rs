//! `consign export-state` and `consign import-state`: back the state up, or move it to another database.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, BufWriter,
};
use tokio::sync::mpsc;

use super::{Failure, Settings, print};
use crate::config::Database;
use crate::config::limits::REQUEST_BYTES_LIMIT;
use crate::server::Base;
use crate::store::Store;
use crate::store::state::{self, Imported, Layout, Line, send};

/// Version of the format.
const VERSION: u32 = 1;
/// Rows on their way between the database and the file; fewer when they are large.
const LINES_MAX: usize = 256;
/// Bytes of a line at the most. Tests have shorter ones.
const LINE_BYTES_MAX: usize = if cfg!(test) { 4096 } else { 512 << 20 };
// The arguments of a task fit into a line: in base64, and with room for what is not arguments.
const _: () = assert!(cfg!(test) || REQUEST_BYTES_LIMIT / 3 * 4 < LINE_BYTES_MAX as u64 / 4 * 3);
/// How often progress is told, in rows.
const TELL_EVERY: u64 = 50_000;

/// Write jobs, tasks, users, keys, webhooks and open uploads to a file, to back them up or to move them to another database.
///
/// Stop the server first (all processes, with PostgreSQL): then the file and the file store belong together. What is secret
/// in the database is as secret in the file, and can only be read with the same secret key: keep that as well. Files are not
/// in it: copy the folder (`data_dir/files`) or leave the object store as it is.
#[derive(Debug, Args)]
#[command(
    after_help = "Example, from SQLite to PostgreSQL:\n  consign export-state state.jsonl\n  export CONSIGN_DATABASE_URL=postgres://consign:…@db/consign\n  consign import-state state.jsonl\n  consign serve"
)]
pub(super) struct ExportState {
    #[command(flatten)]
    settings: Settings,
    /// Where to; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do not insist that the server is stopped. The state is that of one moment, but files come and go meanwhile
    #[arg(long)]
    live: bool,
}

/// Read a file of `consign export-state` into an empty database. All of it is stored, or nothing.
///
/// The settings must name the new database and the same secret key, and the file store must hold the same files.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  CONSIGN_DATABASE_URL=postgres://consign:…@db/consign consign import-state state.jsonl"
)]
pub(super) struct ImportState {
    #[command(flatten)]
    settings: Settings,
    /// Where from; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// The first line. What a later version writes into it, this one need not know: the format has a number, and the columns names.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    consign_state: u32,
    secret_key: i64,
    /// The version that wrote the file, for people.
    #[serde(default)]
    written_by: String,
    /// The columns of each table. Files without them have all that there were before they were written down.
    #[serde(default)]
    columns: Layout,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Foot {
    rows: u64,
}

impl ExportState {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut config = self.settings.load()?;
        // One connection, so that all others are those of servers.
        config.database = Database { connections_max: 1, listen: false };
        let base = Base::open(config, !self.live).await?;
        if !self.live {
            refuse_others(base.store.as_ref()).await?;
        }
        let head = Head {
            consign_state: VERSION,
            secret_key: base.vault.fingerprint(),
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            columns: state::layout(),
        };
        let rows = if is_dash(&self.file) {
            write(base.store.as_ref(), &head, standard(&io::stdout()).context("no standard output")?).await?
        } else {
            write_file(base.store.as_ref(), &head, &self.file).await?
        };
        print::note(format!("{rows} rows of {} are written", base.store.describe()));
        base.store.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl ImportState {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut config = self.settings.load()?;
        // One connection, so that all others are those of servers.
        config.database = Database { connections_max: 1, listen: false };
        let base = Base::open(config, true).await?;
        refuse_others(base.store.as_ref()).await?;
        let fingerprint = base.vault.fingerprint();
        let file = if is_dash(&self.file) {
            standard(&io::stdin()).context("no standard input")?
        } else {
            let cannot = || format!("cannot read {}", self.file.display());
            tokio::fs::File::open(&self.file).await.with_context(cannot)?
        };
        let rows = read(base.store.as_ref(), fingerprint, BufReader::new(file)).await?;
        print::note(format!("{rows} rows are stored in {}", base.store.describe()));
        base.store.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Standard input or output as it was given to this process: its name in `/dev` cannot be opened where it is a socket, and
/// where it is a file, writing would begin at its start.
fn standard(stream: &impl AsFd) -> io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(stream.as_fd().try_clone_to_owned()?.into()))
}

async fn refuse_others(store: &dyn Store) -> anyhow::Result<()> {
    let others = store.others().await?;
    ensure!(others == 0, "{others} connections of running servers use {}; stop all processes first", store.describe());
    Ok(())
}

/// Writes beside the file and renames: an export that breaks off leaves an earlier one as it was.
async fn write_file(store: &dyn Store, head: &Head, path: &Path) -> anyhow::Result<u64> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let cannot = || format!("cannot write {}", part.display());
    let file = own_file(&part).await.with_context(cannot)?;
    let synced = file.try_clone().await?;
    let rows = write(store, head, file).await.with_context(cannot)?;
    synced.sync_all().await.with_context(cannot)?;
    tokio::fs::rename(&part, path).await.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(rows)
}

/// Makes a file that only its owner can read. One that an earlier export left would keep the rights that it has.
async fn own_file(path: &Path) -> io::Result<tokio::fs::File> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}

/// Writes head, rows and foot; returns the number of rows.
async fn write(store: &dyn Store, head: &Head, out: impl AsyncWrite + Unpin + Send) -> anyhow::Result<u64> {
    let mut out = BufWriter::new(out);
    let (sender, mut lines) = mpsc::channel::<Line>(LINES_MAX);
    let writing = async {
        let mut rows: u64 = 0;
        put(&mut out, head).await?;
        while let Some(line) = lines.recv().await {
            put(&mut out, &line).await.with_context(|| format!("row {} of `{}`", rows + 1, line.table))?;
            rows += 1;
            if rows.is_multiple_of(TELL_EVERY) {
                print::note(format!("{rows} rows …"));
            }
        }
        anyhow::Ok(rows)
    };
    // A failure to write ends the reading: both are dropped.
    let exporting = async { store.export_state(sender).await.context("the database cannot be read") };
    let (rows, ()) = tokio::try_join!(writing, exporting)?;
    put(&mut out, &Foot { rows }).await?;
    out.flush().await?;
    Ok(rows)
}

async fn put(out: &mut (impl AsyncWrite + Unpin + Send), line: &(impl Serialize + Sync)) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    ensure!(
        text.len() <= LINE_BYTES_MAX,
        "it makes a line of more than {LINE_BYTES_MAX} bytes, which nobody reads back"
    );
    text.push(b'\n');
    out.write_all(&text).await?;
    Ok(())
}

/// The next line, without its end.
async fn next_line(text: &mut (impl AsyncBufRead + Unpin + Send)) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    text.take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await.context("the file cannot be read")?;
    let is_whole = line.len() <= LINE_BYTES_MAX || line.last() == Some(&b'\n');
    ensure!(
        is_whole,
        "a line is too long, longer than {LINE_BYTES_MAX} bytes: the file was not written by this program"
    );
    ensure!(line.pop() == Some(b'\n'), "the file is not whole: it ends in the middle");
    Ok(line)
}

/// The columns of those tables of which the file has not all that this version knows, or not in its order.
fn partial(head: &Head) -> anyhow::Result<BTreeMap<String, Arc<[String]>>> {
    let (known, mut partial) = (state::layout(), BTreeMap::new());
    for (table, columns) in &head.columns {
        let own = known.get(table).map_or(&[][..], Vec::as_slice);
        if let Some(column) = columns.iter().find(|column| !own.contains(column)) {
            let by = &head.written_by;
            bail!(
                "the file was written by a later version ({by}): this one does not know {table}.{column}; use that one"
            );
        }
        if columns != own {
            partial.insert(table.clone(), Arc::from(columns.as_slice()));
        }
    }
    Ok(partial)
}

/// Reads head, rows and foot. The rows are stored once the foot has been read: before, nothing is.
async fn read(store: &dyn Store, fingerprint: i64, mut text: impl AsyncBufRead + Unpin + Send) -> anyhow::Result<u64> {
    let head: Head = serde_json::from_slice(&next_line(&mut text).await?)
        .context("this is no file of `consign export-state`: its first line says nothing of the kind")?;
    ensure!(head.consign_state == VERSION, "the file has format {}, this version reads {VERSION}", head.consign_state);
    ensure!(
        head.secret_key == fingerprint,
        "the file was written with another secret_key; set that one, or nothing in it could be read"
    );
    let partial = partial(&head)?;
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let reading = async move {
        let mut rows: u64 = 0;
        loop {
            let line = next_line(&mut text).await?;
            if let Ok(foot) = serde_json::from_slice::<Foot>(&line) {
                ensure!(foot.rows == rows, "the file is not whole: it has {rows} rows instead of {}", foot.rows);
                // If nobody takes it, the database has given up, and says why.
                let _ = sender.send(None).await;
                return Ok(rows);
            }
            let bytes = line.len();
            let mut line: Line =
                serde_json::from_slice(&line).with_context(|| format!("row {} makes no sense", rows + 1))?;
            line.columns = partial.get(&line.table).cloned();
            if !send(&sender, Some(line), bytes).await {
                // The database has given up, and says why.
                return Ok(rows);
            }
            rows += 1;
            if rows.is_multiple_of(TELL_EVERY) {
                print::note(format!("{rows} rows …"));
            }
        }
    };
    let (rows, imported) = tokio::join!(reading, store.import_state(lines));
    match (rows, imported) {
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(error).context("nothing is stored"),
        (Ok(_), Ok(Imported::NotEmpty)) => {
            bail!("{} has users or jobs of its own; take an empty one", store.describe())
        }
        (Ok(_), Ok(Imported::Rows(rows))) => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn what_an_earlier_export_left_lends_its_rights_to_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.part");
        std::fs::write(&path, "left").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut reader = std::fs::File::open(&path).unwrap();
        let mut file = own_file(&path).await.unwrap();
        file.write_all(b"secret").await.unwrap();
        file.flush().await.unwrap();
        let mut seen = String::new();
        io::Read::read_to_string(&mut reader, &mut seen).unwrap();
        assert_eq!(seen, "left", "who has the earlier file open does not read this one");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_is_written_can_be_read_back_and_what_could_not_is_not_written() {
        let line = |bytes: usize| Line { table: "t".to_owned(), values: vec!["x".repeat(bytes).into()], columns: None };
        let around = serde_json::to_vec(&line(0)).unwrap().len();
        let mut text = Vec::new();
        put(&mut text, &line(LINE_BYTES_MAX - around)).await.unwrap();
        let read = next_line(&mut text.as_slice()).await.unwrap();
        assert_eq!(read.len(), LINE_BYTES_MAX);
        let error = put(&mut text, &line(LINE_BYTES_MAX - around + 1)).await.unwrap_err();
        assert!(error.to_string().contains("nobody reads back"), "{error}");
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_told_from_one_that_ends_too_early() {
        for (length, said) in [(LINE_BYTES_MAX, "not whole"), (LINE_BYTES_MAX + 1, "too long"), (10, "not whole")] {
            let error = next_line(&mut vec![b'x'; length].as_slice()).await.unwrap_err();
            assert!(error.to_string().contains(said), "{length}: {error}");
        }
    }
}
