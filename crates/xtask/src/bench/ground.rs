//! What a figure stands on: which build it is of, and on which file systems its files lay.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{PAGES, process};

/// The commit that is checked out, with a plus sign when files have changed since. Pages that a benchmark has just
/// written are none of the program's.
pub(super) fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = process(Path::new("git")).args(arguments).current_dir(root).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "no commit".to_owned() };
    let but_pages = format!(":!{PAGES}");
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", &but_pages]);
    let is_clean = changed.is_some_and(|changed| changed.is_empty());
    format!("{commit}{}", if is_clean { "" } else { "+" })
}

/// What a program of ours says of its version, with what it was built from.
///
/// # Errors
/// When it does not run.
pub(super) fn build(program: &Path, commit: &str) -> Result<String> {
    let output = process(program).arg("--version").output().with_context(|| program.display().to_string())?;
    ensure!(output.status.success(), "{} --version failed", program.display());
    Ok(format!("{}, {commit}", String::from_utf8_lossy(&output.stdout).trim()))
}

/// A folder and its file system, such as `/dev/shm (tmpfs)`.
pub(super) fn folder(folder: &Path) -> String {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    format!("{} ({})", folder.display(), file_system(&mounts, &real).unwrap_or("unknown"))
}

/// The type of the innermost file system that a path is on.
fn file_system<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    mounts.filter(|(at, _)| path.starts_with(at)).max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_file_system_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\nshm /dev/shm tmpfs rw 0 0\ndevtmpfs /dev devtmpfs rw 0 0\n";
        let kind = |path| file_system(mounts, Path::new(path));
        assert_eq!(
            [kind("/dev/shm/x"), kind("/dev/x"), kind("/dev/shmx"), kind("/tmp")].map(Option::unwrap),
            ["tmpfs", "devtmpfs", "devtmpfs", "ext4"]
        );
        assert_eq!(file_system("", Path::new("/")), None);
    }

    #[test]
    fn a_program_that_does_not_run_has_no_version() {
        assert!(build(Path::new("/nonexistent/consign"), "x").is_err());
    }
}
