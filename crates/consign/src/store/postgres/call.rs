//! How the shared methods of the store call PostgreSQL: the words that they are written in.

/// Runs a statement inside a read transaction.
macro_rules! read {
    ($store:expr, $($query:tt)*) => {
        read_on!($store.writer, $crate::store::postgres::run::DURABLE, $($query)*)
    };
}

/// The same on the connection of signs of life.
macro_rules! beat_read {
    ($store:expr, $($query:tt)*) => {
        read_on!($store.beats, $crate::store::postgres::run::BEAT, $($query)*)
    };
}

macro_rules! read_on {
    ($writer:expr, $way:expr, $query:ident :: $name:ident ( $($argument:expr),* )) => {{
        let mut patience = $way.patience();
        loop {
            let looked = async {
                let mut read = $writer.snapshot().await?;
                let found = queries::$query::$name(&mut read, $($argument),*).await?;
                read.commit().await?;
                Ok(found)
            };
            match $way.in_time(looked).await {
                Ok(found) => break Ok(found),
                Err(failure) => patience.after(failure).await?,
            }
        }
    }};
}

/// Runs a statement inside a transaction; values that it borrows are named, since it may run more than once.
macro_rules! command {
    ($store:expr, [$($owned:ident),*] $query:ident :: $name:ident ( $($argument:expr),* )) => {
        run_command!($store.writer, $crate::store::postgres::run::DURABLE, [$($owned),*] $query::$name($($argument),*))
    };
}

/// As `command!`, for a sign of life: on a connection that is kept for it, and may be lost when the server crashes, since the
/// answer does not wait for the disk. Never for a state that a client can see, but for a percentage: it would go back.
macro_rules! beat {
    ($store:expr, [$($owned:ident),*] $query:ident :: $name:ident ( $($argument:expr),* )) => {
        run_command!($store.beats, $crate::store::postgres::run::BEAT, [$($owned),*] $query::$name($($argument),*))
    };
}

/// A task ends well: PostgreSQL writes it with others that end at the same time.
macro_rules! finish {
    ($store:expr, $id:expr, $token:expr, $files:expr, $now:expr) => {
        $store.ends.run($crate::store::postgres::ends::End { id: $id, token: $token, files: $files, now: $now }).await
    };
}

/// Claims, if there may be something to claim.
macro_rules! claim {
    ($store:expr, $request:expr) => {{
        let request = $request;
        if $store.may_claim().await? {
            let claims = command!($store, [] claim::claim(&request));
            $store.claimed(&claims);
            claims
        } else {
            Ok(Vec::new())
        }
    }};
}

/// Makes a job, together with others that are made at the same time if it has nothing to do with others.
macro_rules! create_job {
    ($store:expr, $new:expr) => {
        match $crate::store::postgres::creations::Create::of($new) {
            Ok(create) => $store.creations.run(create).await,
            Err(new) => command!($store, [new] jobs::create_job(&new)),
        }
    };
}

macro_rules! run_command {
    ($writer:expr, $way:expr, [$($owned:ident),*] $query:ident :: $name:ident ( $($argument:expr),* )) => {
        $writer
            .command($way, move |mut tx| {
                $(let $owned = $owned.clone();)*
                Box::pin(async move {
                    let done = queries::$query::$name(&mut tx, $($argument),*).await;
                    (tx, done)
                })
            })
            .await
    };
}
