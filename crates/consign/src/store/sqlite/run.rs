//! How the shared methods of the store reach SQLite: through a reader, or through the writer.

/// Runs a statement inside a read transaction.
macro_rules! read {
    ($store:expr, $query:ident :: $name:ident ( $($argument:expr),* )) => {{
        let mut read = $store.read().await?;
        queries::$query::$name(&mut read, $($argument),*).await.map_err(Database::failed)
    }};
}

/// Hands a statement to the writer, with the values that it borrows.
macro_rules! command {
    ($store:expr, [$($owned:ident),*] $query:ident :: $name:ident ( $($argument:expr),* )) => {
        $store.writer
            .write(move |tx| Box::pin(async move { queries::$query::$name(tx, $($argument),*).await }))
            .await
    };
}

/// Reads for a sign of life. Here nobody has to wait for a reader.
macro_rules! beat_read {
    ($($query:tt)*) => {
        read!($($query)*)
    };
}

/// Hands over a sign of life, which need not survive a power cut. Here it is written with the others all the same.
macro_rules! beat {
    ($($command:tt)*) => {
        command!($($command)*)
    };
}

/// A task ends well. Here it is written with all others, whatever they do.
macro_rules! finish {
    ($store:expr, $id:expr, $token:expr, $files:expr, $now:expr) => {{
        let files = $files;
        command!($store, [files] transitions::finish($id, $token, &files, $now))
    }};
}

/// Claims. A claim that finds nothing costs little here.
macro_rules! claim {
    ($store:expr, $request:expr) => {{
        let request = $request;
        command!($store, [] claim::claim(&request))
    }};
}

/// Makes a job. Here it is written with all others, whatever they do.
macro_rules! create_job {
    ($store:expr, $new:expr) => {{
        let new = $new;
        command!($store, [new] jobs::create_job(&new))
    }};
}
