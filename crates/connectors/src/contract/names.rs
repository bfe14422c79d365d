//! Names arrive byte for byte.

use std::sync::Arc;

use super::handy::{Attempt, Must as _, delete, folder, owner};
use super::{Excluded, Fixture, Outcome};
use crate::Connector;
use crate::memory::MemorySource;

/// The longest name that is tried.
const LONG_BYTES: usize = 1024;

const ONLY_KEYS: &str = "names are paths of a file system";

pub(super) async fn spaces(fixture: &dyn Fixture) -> Outcome {
    below_prefix(fixture, &["a b  c.txt", "in a folder/ two  spaces .txt"]).await
}

pub(super) async fn unicode(fixture: &dyn Fixture) -> Outcome {
    below_prefix(fixture, &["ünï 日本語 🦀.bin", "e\u{301}.txt", "\u{e9}.txt", "عربي/ملف"]).await
}

pub(super) async fn percent_signs(fixture: &dyn Fixture) -> Outcome {
    below_prefix(fixture, &["100%.txt", "%41%2F.txt", "%", "%zz%25"]).await
}

pub(super) async fn plus_signs(fixture: &dyn Fixture) -> Outcome {
    below_prefix(fixture, &["a+b c&d=e;f,g@h:i$j.txt", "q?x=1#y.txt"]).await
}

pub(super) async fn brackets_and_quotes(fixture: &dyn Fixture) -> Outcome {
    below_prefix(fixture, &["'quoted' \"twice\" (x) [y] {z} <w> |^`~!*.txt", ".hidden", "-dash"]).await
}

pub(super) async fn leading_slash(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    Excluded::unless(connector.capability().names_are_keys, ONLY_KEYS)?;
    for slashes in ["/", "//"] {
        keeps(fixture, connector.as_ref(), &format!("{slashes}{}leading", fixture.prefix())).await;
    }
    Ok(())
}

pub(super) async fn double_slash(fixture: &dyn Fixture) -> Outcome {
    if_keys(fixture, &["a//b", "f/", "g//"]).await
}

pub(super) async fn dot_segments(fixture: &dyn Fixture) -> Outcome {
    let keeps_them = owner(fixture)?.capability().keeps_dot_segments;
    Excluded::unless(keeps_them, "the service resolves such names, so they are refused before anything is sent")?;
    if_keys(fixture, &["a/../b", "./c", "d\\e", "..", "f/."]).await
}

pub(super) async fn longest_name(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let length = connector.capability().name_bytes_max.min(LONG_BYTES);
    keeps(fixture, connector.as_ref(), &long_name(fixture.prefix(), length)).await;
    Ok(())
}

async fn if_keys(fixture: &dyn Fixture, names: &[&str]) -> Outcome {
    Excluded::unless(owner(fixture)?.capability().names_are_keys, ONLY_KEYS)?;
    below_prefix(fixture, names).await
}

async fn below_prefix(fixture: &dyn Fixture, names: &[&str]) -> Outcome {
    let connector = owner(fixture)?;
    for name in names {
        keeps(fixture, connector.as_ref(), &format!("{}{name}", fixture.prefix())).await;
    }
    Ok(())
}

async fn keeps(fixture: &dyn Fixture, connector: &dyn Connector, name: &str) {
    let attempt = Attempt::of(name, Arc::new(MemorySource::new(name.as_bytes().to_vec())));
    attempt.put(connector).await.must(name);
    attempt.is_whole(fixture, connector).await;
    let listed = connector.list(folder(name), 1000).await.must(name);
    assert!(listed.iter().any(|object| object.name == name), "{name:?} is not in {listed:?}");
    delete(connector, name).await;
}

/// A name of exactly `length` bytes whose segments fit any file system.
fn long_name(prefix: &str, length: usize) -> String {
    let mut name = prefix.to_owned();
    while name.len() < length {
        name.push(if name.len() % 200 == 199 && name.len() + 1 < length { '/' } else { 'n' });
    }
    name
}
