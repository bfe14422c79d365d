//! Finding objects, and not finding them.

use std::sync::Arc;

use bytes::BytesMut;
use futures_util::TryStreamExt as _;

use super::handy::{Must as _, delete, owner, put};
use super::{Fixture, Outcome};
use crate::error::Kind;
use crate::memory::MemorySource;

pub(super) async fn list_by_prefix(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let folder = format!("{}listed/", fixture.prefix());
    let names: Vec<String> = ["a", "b", "c"].iter().map(|name| format!("{folder}{name}")).collect();
    let beside = format!("{}listed-beside", fixture.prefix());
    for name in names.iter().chain([&beside]) {
        let source = Arc::new(MemorySource::new(name.as_bytes().to_vec()));
        put(connector, name, &source).await.must(name);
    }
    let found = connector.list(&folder, 3).await.must(&folder);
    assert_eq!(found.iter().map(|object| object.name.clone()).collect::<Vec<_>>(), names);
    assert!(found.iter().all(|object| object.size == folder.len() as u64 + 1), "{found:?}");
    let error = connector.list(&folder, 2).await.expect_err("three objects are more than two");
    assert_eq!(error.kind, Kind::TooMany, "{error:?}");
    for name in names.iter().chain([&beside]) {
        delete(connector, name).await;
    }
    Ok(())
}

pub(super) async fn missing_object(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let name = format!("{}missing", fixture.prefix());
    let error = connector.stat(&name).await.expect_err("there is no such object");
    assert_eq!(error.kind, Kind::NotFound, "{error:?}");
    match connector.read(&name, 0..1).await {
        Err(error) => assert_eq!(error.kind, Kind::NotFound, "{error:?}"),
        Ok(stream) => {
            let error = stream.try_collect::<BytesMut>().await.expect_err("there is no such object");
            assert_eq!(error.kind, Kind::NotFound, "{error:?}");
        }
    }
    Ok(())
}
