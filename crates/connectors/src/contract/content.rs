//! What is under a name after it was written once, twice, and by two at the same time.

use super::handy::{Attempt, Must as _, delete, many_parts, nothing_left, owner, part, put, source};
use super::{Excluded, Fixture, Outcome};

pub(super) async fn content_type(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    Excluded::unless(connector.capability().keeps_content_type, "files have no media type")?;
    for length in [3, part(fixture) + 1] {
        let attempt = Attempt::of(format!("{}typed-{length}", fixture.prefix()), source(length, 3));
        attempt.put(connector).await.must(&attempt.name);
        let object = connector.stat(&attempt.name).await.must(&attempt.name);
        assert_eq!(object.content_type, attempt.expected(connector).content_type, "{}", attempt.name);
        assert_eq!(object.size, length as u64);
        attempt.is_whole(fixture, connector).await;
        delete(connector, &attempt.name).await;
    }
    Ok(())
}

pub(super) async fn overwrite(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let name = format!("{}overwritten/object", fixture.prefix());
    for length in [1000, many_parts(fixture), part(fixture) + 5, 10] {
        let attempt = Attempt::of(&name, source(length, length as u64));
        attempt.put(connector).await.must(&name);
        attempt.is_whole(fixture, connector).await;
    }
    delete(connector, &name).await;
    Ok(())
}

pub(super) async fn the_same_export_twice(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let folder = format!("{}twice/", fixture.prefix());
    let attempt = Attempt::of(format!("{folder}object"), source(part(fixture) + 100, 13));
    for _ in 0..2 {
        attempt.put(connector).await.must(&attempt.name);
        attempt.is_whole(fixture, connector).await;
        let seen = fixture.witness().read_all(&folder).await.must(&folder);
        assert_eq!(seen.into_keys().collect::<Vec<_>>(), [attempt.name.as_str()]);
    }
    delete(connector, &attempt.name).await;
    Ok(())
}

/// Two attempts of one task may overlap for a moment: a process that was slow, and the one that took over from it.
pub(super) async fn the_same_export_at_the_same_time(fixture: &dyn Fixture) -> Outcome {
    let (first, second) = (owner(fixture)?, owner(fixture)?);
    let folder = format!("{}at-once/", fixture.prefix());
    for (length, seeds) in [(1000, [1, 1]), (many_parts(fixture), [2, 2]), (many_parts(fixture), [3, 4])] {
        let place = format!("{folder}{length}-{}/", seeds[1]);
        let name = format!("{place}object");
        let attempts = seeds.map(|seed| Attempt::of(&name, source(length, seed)));
        let (one, other) = futures_util::join!(attempts[0].put(first.as_ref()), attempts[1].put(second.as_ref()));
        one.must(&name);
        other.must(&name);
        let seen = fixture.witness().read_all(&place).await.must(&name);
        assert_eq!(seen.len(), 1, "{seen:?}");
        let whole = attempts.each_ref().map(|attempt| attempt.expected(first.as_ref()));
        assert!(seen.values().all(|seen| whole.contains(seen)), "{name}: {seen:?} is neither of {whole:?}");
        for attempt in &attempts {
            nothing_left(fixture, &name, &attempt.journal).await;
        }
        delete(first.as_ref(), &name).await;
    }
    // Afterwards the storage takes the same name again.
    put(first.as_ref(), &format!("{folder}again"), &source(10, 5)).await.must(&folder);
    delete(first.as_ref(), &format!("{folder}again")).await;
    Ok(())
}
