//! Objects of every size, alone and in great number.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::handy::{Attempt, Must as _, collect, delete, owner, part, put, source};
use super::{Fixture, LARGE_BYTES, Outcome};
use crate::error::Kind;
use crate::source::Source as _;

/// How many small objects there are.
const SMALL: usize = 300;
/// How many of them are under way at once.
const SMALL_AT_ONCE: usize = 8;

pub(super) async fn empty_object(fixture: &dyn Fixture) -> Outcome {
    round_trip(fixture, 0).await
}

pub(super) async fn one_byte(fixture: &dyn Fixture) -> Outcome {
    round_trip(fixture, 1).await
}

pub(super) async fn a_part_less_a_byte(fixture: &dyn Fixture) -> Outcome {
    round_trip(fixture, part(fixture) - 1).await
}

pub(super) async fn one_part(fixture: &dyn Fixture) -> Outcome {
    round_trip(fixture, part(fixture)).await
}

pub(super) async fn a_part_and_a_byte(fixture: &dyn Fixture) -> Outcome {
    round_trip(fixture, part(fixture) + 1).await
}

pub(super) async fn large_object(fixture: &dyn Fixture) -> Outcome {
    round_trip(fixture, LARGE_BYTES).await
}

async fn round_trip(fixture: &dyn Fixture, length: usize) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let attempt = Attempt::of(format!("{}size/{length}", fixture.prefix()), source(length, length as u64));
    let name = attempt.name.as_str();
    attempt.put(connector).await.must(name);
    attempt.is_whole(fixture, connector).await;
    delete(connector, name).await;
    let error = connector.stat(name).await.expect_err("a deleted object is gone");
    assert_eq!(error.kind, Kind::NotFound, "{error:?}");
    attempt.is_nowhere(fixture).await;
    // What is gone already counts as deleted.
    delete(connector, name).await;
    Ok(())
}

pub(super) async fn three_hundred_files(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let folder = format!("{}many/", fixture.prefix());
    let attempts: Vec<Attempt> =
        (0..SMALL).map(|number| Attempt::of(format!("{folder}{number:03}"), source(number, number as u64))).collect();
    let puts: Vec<_> = attempts.iter().map(|attempt| attempt.put(connector)).collect();
    stream::iter(puts).buffer_unordered(SMALL_AT_ONCE).try_collect::<Vec<_>>().await.must(&folder);
    let listed = connector.list(&folder, SMALL).await.must(&folder);
    let sizes: Vec<(&str, u64)> = listed.iter().map(|object| (object.name.as_str(), object.size)).collect();
    let expected: Vec<(&str, u64)> = attempts.iter().map(|put| (put.name.as_str(), put.source.size())).collect();
    assert_eq!(sizes, expected);
    let seen = fixture.witness().read_all(&folder).await.must(&folder);
    assert_eq!(seen.len(), SMALL, "the witness sees others: {:?}", seen.keys());
    for attempt in &attempts {
        assert_eq!(seen.get(&attempt.name), Some(&attempt.expected(connector)), "{}", attempt.name);
    }
    let left = fixture.witness().left_over(&folder, &[]).await.must(&folder);
    assert!(left.is_empty(), "left over: {left:?}");
    let deletes: Vec<_> = attempts.iter().map(|attempt| connector.delete(&attempt.name)).collect();
    stream::iter(deletes).buffer_unordered(SMALL_AT_ONCE).try_collect::<Vec<_>>().await.must(&folder);
    Ok(())
}

pub(super) async fn ranges(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let name = format!("{}ranges", fixture.prefix());
    let source = source(100_000, 7);
    put(connector, &name, &source).await.must(&name);
    for range in [0..1, 0..100_000, 99_999..100_000, 33_000..66_001] {
        let found = collect(connector, &name, range.clone()).await.must(&name);
        let expected = source.read_at(range.start, usize::try_from(range.end - range.start).expect("small")).await;
        assert!(found == expected.expect("the range lies within"), "{range:?}: other bytes came back");
    }
    delete(connector, &name).await;
    Ok(())
}
