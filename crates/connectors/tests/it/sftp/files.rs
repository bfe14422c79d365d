//! What becomes of files and directories.

use std::fs;
use std::sync::Arc;

use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Connector as _, Kind, Progress, contract};
use testkit::or_skip;

use super::{MIB, config, connector, files, source};

#[tokio::test]
async fn the_receipt_names_place_and_host_key() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let folder = sshd.folder("receipt").unwrap();
    let relative = format!("{}/new/ü b.txt", folder.file_name().unwrap().to_str().unwrap());
    let receipt = contract::put(&connector, &relative, &source(10, 1)).await.unwrap();
    let place = folder.join("new/ü b.txt");
    assert_eq!(receipt.location, format!("sftp://{}{}", sshd.addr(), place.display()));
    assert!(sshd.fingerprints().contains(receipt.host_key.as_ref().unwrap()));
    assert_eq!((receipt.verified.as_str(), receipt.note), ("size", None));
    assert_eq!(fs::read(place).unwrap(), contract::bytes(10, 1));
    assert_eq!(files(&folder.join("new")), ["ü b.txt"]);
}

#[tokio::test]
async fn what_the_user_may_not_do_is_said() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let denied = sshd.denied().display().to_string();
    for name in [format!("{denied}/x"), format!("{denied}/new/x")] {
        let error = contract::put(&connector, &name, &source(10, 1)).await.expect_err("a denied folder");
        assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
        assert!(error.detail.contains(sshd.user()) && error.detail.contains(&denied), "{error:?}");
        assert!(!error.is_transient());
    }
    let folder = sshd.folder("in-the-way").unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    fs::create_dir(folder.join("directory")).unwrap();
    let below = contract::put(&connector, &format!("{}/file/x", folder.display()), &source(10, 1)).await;
    let below = below.expect_err("a file is in the way");
    assert_eq!(below.kind, Kind::InvalidRequest, "{below:?}");
    let onto = contract::put(&connector, &format!("{}/directory", folder.display()), &source(10, 1)).await;
    let onto = onto.expect_err("a directory is in the way");
    assert_eq!(onto.kind, Kind::InvalidRequest, "{onto:?}");
    let nowhere = connector.list(&format!("{}/missing", folder.display()), 10).await.expect_err("no such directory");
    assert_eq!(nowhere.kind, Kind::ContainerNotFound, "{nowhere:?}");
    assert_eq!(connector.stat(&format!("{}/directory", folder.display())).await.unwrap_err().kind, Kind::NotFound);
}

/// Replaces a file over and over while a reader looks: it must see one of the two whole files each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_the_old_file_or_the_new_one() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let target = sshd.folder("atomic").unwrap().join("file");
    let name = target.display().to_string();
    let contents = [source(3 * MIB, 1), source(MIB, 2)];
    contract::put(&connector, &name, &contents[0]).await.unwrap();
    let expected = [contents[0].bytes().clone(), contents[1].bytes().clone()];
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let mut seen = [0_u32; 2];
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let found = fs::read(&target).expect("there is always a file");
            let which = expected.iter().position(|bytes| *bytes == found).expect("it is always whole");
            seen[which] += 1;
        }
        seen
    });
    for round in 0..10 {
        contract::put(&connector, &name, &contents[(round + 1) % 2]).await.unwrap();
    }
    drop(stop);
    let seen = reader.join().unwrap();
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

#[tokio::test]
async fn without_posix_rename_files_are_replaced_in_steps() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr_no_posix_rename()));
    let folder = sshd.folder("steps").unwrap();
    let name = folder.join("file").display().to_string();
    let first = contract::put(&connector, &name, &source(100, 1)).await.unwrap();
    assert_eq!(first.note, None);
    let second = contract::put(&connector, &name, &source(200, 2)).await.unwrap();
    assert!(second.note.as_ref().is_some_and(|note| note.contains("one step")), "{second:?}");
    assert_eq!(fs::read(&name).unwrap(), contract::bytes(200, 2));
    assert_eq!(files(&folder), ["file"]);
}

/// A crash between the two renames of a replacement: the old file stands aside, the new one still has its temporary name.
#[tokio::test]
async fn a_replacement_that_broke_off_is_put_right() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr_no_posix_rename()));
    for resumes in [false, true] {
        let folder = sshd.folder("broke-off").unwrap();
        let target = folder.join("file");
        let name = target.display().to_string();
        contract::put(&connector, &name, &source(100, 1)).await.unwrap();
        let (data, journal) = (contract::bytes(3 * MIB, 2), Arc::new(MemoryJournal::default()));
        let failing = Arc::new(MemorySource::new(data.clone()).failing_from(2 * MIB as u64));
        let put = contract::request(&name, &failing, &journal, &Progress::default(), None);
        assert_eq!(connector.put(put).await.unwrap_err().kind, Kind::Local);
        let open = journal.open(&name).unwrap();
        fs::rename(&target, open.handle.replace(".part", ".old")).unwrap();
        if resumes {
            let whole = Arc::new(MemorySource::new(data.clone()));
            let put = contract::request(&name, &whole, &journal, &Progress::default(), Some(open));
            connector.put(put).await.unwrap();
            assert_eq!(fs::read(&target).unwrap(), data);
        } else {
            connector.abort(&open).await.unwrap();
            assert_eq!(fs::read(&target).unwrap(), contract::bytes(100, 1));
        }
        assert_eq!(files(&folder), ["file"]);
    }
}

#[tokio::test]
async fn listings_follow_links_and_skip_the_rest() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let folder = sshd.folder("listing").unwrap();
    fs::create_dir(folder.join("directory")).unwrap();
    fs::write(folder.join("b"), "bb").unwrap();
    fs::write(folder.join(".hidden"), "h").unwrap();
    fs::write(folder.join(".b.consign-0123abcd.part"), "b").unwrap();
    for (link, to) in [("a-link", "b"), ("nowhere", "missing"), ("to-directory", "directory")] {
        std::os::unix::fs::symlink(to, folder.join(link)).unwrap();
    }
    let prefix = folder.display().to_string();
    let found = connector.list(&prefix, 3).await.unwrap();
    let found: Vec<_> = found.iter().map(|object| (object.name.strip_prefix(&prefix).unwrap(), object.size)).collect();
    assert_eq!(found, [("/.hidden", 1), ("/a-link", 2), ("/b", 2)]);
    assert_eq!(connector.list(&prefix, 2).await.unwrap_err().kind, Kind::TooMany);
}
