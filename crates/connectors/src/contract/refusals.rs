//! Credentials and places that the storage refuses.

use super::handy::{Attempt, Must as _, delete, many_parts, owner, part, source};
use super::{Excluded, Fixture, Outcome, Who};
use crate::error::{Error, Kind};

pub(super) async fn wrong_key_id(fixture: &dyn Fixture) -> Outcome {
    stranger(fixture, Who::UnknownKey).await
}

pub(super) async fn wrong_secret(fixture: &dyn Fixture) -> Outcome {
    stranger(fixture, Who::WrongSecret).await
}

async fn stranger(fixture: &dyn Fixture, who: Who) -> Outcome {
    let connector = fixture.connect(who, fixture.limits(), None)?;
    for length in [1, part(fixture), many_parts(fixture)] {
        let attempt = Attempt::of(format!("{}refused/{length}", fixture.prefix()), source(length, 5));
        let error = attempt.put(connector.as_ref()).await.expect_err("the server does not know who this is");
        assert!(matches!(error.kind, Kind::InvalidCredentials | Kind::AccessDenied), "{length}: {error:?}");
        is_final(&error);
        attempt.is_nowhere(fixture).await;
    }
    Ok(())
}

pub(super) async fn missing_container(fixture: &dyn Fixture) -> Outcome {
    Excluded::unless(owner(fixture)?.capability().has_containers, "directories are made when they are missing")?;
    let connector = fixture.connect(Who::MissingContainer, fixture.limits(), None)?;
    for length in [1, many_parts(fixture)] {
        let attempt = Attempt::of("x", source(length, 5));
        let error = attempt.put(connector.as_ref()).await.expect_err("there is no such container");
        assert_eq!(error.kind, Kind::ContainerNotFound, "{error:?}");
        is_final(&error);
    }
    Ok(())
}

pub(super) async fn no_permission(fixture: &dyn Fixture) -> Outcome {
    let reader = fixture.connect(Who::Reader, fixture.limits(), None)?;
    let owner = owner(fixture)?;
    let there = Attempt::of(format!("{}readable/object", fixture.prefix()), source(1000, 6));
    there.put(owner.as_ref()).await.must(&there.name);
    let found = reader.stat(&there.name).await.must("the credentials that may only read");
    assert_eq!(found.size, 1000);
    for length in [1, many_parts(fixture)] {
        let attempt = Attempt::of(format!("{}denied/{length}", fixture.prefix()), source(length, 5));
        let error = attempt.put(reader.as_ref()).await.expect_err("these credentials may only read");
        assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
        is_final(&error);
        attempt.is_nowhere(fixture).await;
    }
    let error = reader.delete(&there.name).await.expect_err("these credentials may only read");
    assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
    there.is_whole(fixture, owner.as_ref()).await;
    delete(owner.as_ref(), &there.name).await;
    Ok(())
}

/// It is of no use to try again, and the client is told something.
fn is_final(error: &Error) {
    assert!(!error.is_transient(), "{error:?}");
    assert!(error.detail.len() > 10, "{error:?} says nothing to act on");
}
