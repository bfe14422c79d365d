//! The server's secret key: from the settings, or from a file of its own that is made at the first start.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::Error;
use crate::config::Config;
use crate::secret::Vault;

/// Opens the vault with the key of the settings.
pub(super) fn vault(config: &Config) -> Result<Vault, Error> {
    let text = match (&config.secret_key, &config.secret_key_file) {
        (Some(key), _) => key.expose().to_owned(),
        (None, Some(path)) => read(path)?,
        (None, None) => own(&config.data_dir.join("secret.key"))?,
    };
    Vault::from_base64(&text).map_err(|problem| Error::Setting(problem.to_owned()))
}

fn own(path: &Path) -> Result<String, Error> {
    match create(path) {
        Ok(key) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(source) => Err(Error::Disk { action: "cannot create the secret key", path: path.to_owned(), source }),
    }
}

/// Writes a new key under a temporary name and gives it the real one only when it is on disk: a process that is
/// killed meanwhile must not leave half a key behind, and of two that start at once both must read the same.
fn create(path: &Path) -> io::Result<String> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let key = Vault::generate();
    let temporary = path.with_extension(format!("{:08x}.new", rand::random::<u32>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let linked = file
        .write_all(key.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&temporary, path));
    std::fs::remove_file(&temporary)?;
    linked?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Disk { action: "cannot read the secret key", path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let shown = path.display();
        tracing::warn!("{shown} can be read by others; run `chmod 600 {shown}`");
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.key");
        let first = own(&path).unwrap();
        assert_eq!(own(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
