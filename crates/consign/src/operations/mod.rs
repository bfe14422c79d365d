//! What a task can do. One operation is one file: its arguments, what goes together, and how it runs.
//!
//! An operation sees its [`Context`]: input files, a place for output files, the guarded network, progress. It knows
//! neither the store nor HTTP and cannot change its task's state. It may be run again after a crash, and must then
//! leave the same behind as if it had run once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use connectors::{Network, OpenUpload};
use schemars::Schema;
use serde_json::{Map, Value};

use crate::error::{Faults, TaskError};
use crate::model::File;

mod account;
pub mod arguments;
pub mod context;
pub mod elsewhere;
pub mod export;
mod headers;
pub mod import;
pub mod manual;
pub mod permissions;
pub mod prepare;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;
pub mod trial;

pub use arguments::Arguments;
pub use context::{Context, InputFile};
pub use permissions::Permissions;
use storage::{Destination, Export, Import};
pub use storage::{FromStorage, ToStorage};

/// What an operation produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its files in order: kept here, or delivered elsewhere with a receipt.
    pub files: Vec<File>,
}

/// Where an operation's files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// It brings them in itself; `input` is not among its arguments.
    Itself,
    /// The client posts one to the form of the waiting task; the runner never runs it.
    Client,
    /// From the tasks named in `input`, which is required.
    Inputs,
}

/// One operation. `run` reads like a sentence: build the connector, move bytes, say what came out.
pub trait Operation: Send + Sync + 'static {
    /// As on the wire: `export/s3`.
    const NAME: &'static str;
    /// Where its files come from.
    const FEED: Feed;
    /// Its arguments, without `operation`, `input` and `ignore_error`.
    type Args: Arguments;

    /// Checks what spans fields; bounds of single fields are attributes.
    fn check(_args: &Self::Args, _faults: &mut Faults) {}

    /// Does it.
    ///
    /// # Errors
    /// A code, a sentence for the client, and whether to try again.
    fn run(args: Self::Args, task: Context) -> impl Future<Output = Result<Outcome, TaskError>> + Send;

    /// Clears away what an attempt left open at the destination.
    ///
    /// # Errors
    /// The connector's.
    fn abort(
        _args: Self::Args,
        _open: OpenUpload,
        _network: Network,
    ) -> impl Future<Output = connectors::Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Arguments as the client sent them, without `operation`, `input`, `name` and `ignore_error`.
pub type RawArgs = Map<String, Value>;

type Running = Pin<Box<dyn Future<Output = Result<Outcome, TaskError>> + Send>>;
type Aborting = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// What only an export to a storage has.
#[derive(Clone, Copy)]
struct Delivers {
    destination: fn(RawArgs, &Network) -> Result<Destination, TaskError>,
    permissions: fn(RawArgs) -> Result<Option<Permissions>, TaskError>,
}

/// An operation whose type is forgotten.
#[derive(Clone, Copy)]
pub struct Entry {
    /// As on the wire.
    pub name: &'static str,
    /// Where its files come from.
    pub feed: Feed,
    schema: fn() -> Schema,
    prepare: fn(&mut RawArgs, &Schema) -> Result<Vec<String>, Faults>,
    run: fn(RawArgs, Context) -> Running,
    abort: fn(RawArgs, OpenUpload, Network) -> Aborting,
    delivers: Option<Delivers>,
}

impl Entry {
    /// Forgets the type of an operation.
    pub const fn of<O: Operation>() -> Self {
        Self {
            name: O::NAME,
            feed: O::FEED,
            schema: prepare::schema_of::<O>,
            prepare: prepare::prepare::<O>,
            run: |args, task| {
                Box::pin(async move {
                    let args = prepare::read::<O>(args)?;
                    O::run(args, task).await
                })
            },
            abort: |args, open, network| {
                Box::pin(async move {
                    let args = prepare::read::<O>(args)?;
                    Ok(O::abort(args, open, network).await?)
                })
            },
            delivers: None,
        }
    }

    /// Forgets the type of an export to a storage.
    pub const fn to<S: ToStorage>() -> Self {
        Self {
            delivers: Some(Delivers {
                destination: |args, network| {
                    let args = prepare::read::<Export<S>>(args)?;
                    Ok(S::destination(&args, network)?)
                },
                permissions: |args| Ok(S::permissions(&prepare::read::<Export<S>>(args)?)),
            }),
            ..Self::of::<Export<S>>()
        }
    }

    /// Forgets the type of an import from a storage.
    pub const fn from<S: FromStorage>() -> Self {
        Self::of::<Import<S>>()
    }

    /// JSON Schema of the arguments, with documentation; secrets are `writeOnly`.
    pub fn schema(&self) -> Schema {
        (self.schema)()
    }

    /// Checks arguments, all faults at once by field, and brings them into their normal form (`[]` for an empty map
    /// and `null` for "not given" are accepted). Returns warnings, such as arguments that are not known.
    ///
    /// # Errors
    /// Faults by argument name.
    pub fn prepare(&self, args: &mut RawArgs) -> Result<Vec<String>, Faults> {
        (self.prepare)(args, &self.schema())
    }

    /// Runs it.
    ///
    /// # Errors
    /// The operation's.
    pub async fn run(&self, args: RawArgs, task: Context) -> Result<Outcome, TaskError> {
        (self.run)(args, task).await
    }

    /// Clears away what an attempt left open at the destination.
    ///
    /// # Errors
    /// The connector's.
    pub async fn abort(&self, args: RawArgs, open: OpenUpload, network: Network) -> Result<(), TaskError> {
        (self.abort)(args, open, network).await
    }

    /// Where an export to a storage puts files; `None` for other operations. Contacts nobody.
    ///
    /// # Errors
    /// Credentials or addresses that cannot be read.
    pub fn destination(&self, args: RawArgs, network: &Network) -> Option<Result<Destination, TaskError>> {
        self.delivers.map(|delivers| (delivers.destination)(args, network))
    }

    /// Whether it is an export to a storage.
    pub fn has_destination(&self) -> bool {
        self.delivers.is_some()
    }

    /// What an export must be allowed at its destination, where that is known.
    pub fn permissions(&self, args: RawArgs) -> Option<Permissions> {
        (self.delivers?.permissions)(args).ok()?
    }

    /// Arguments as they may be shown: secrets, values in `headers`, and user info and query of URLs as `"***"`.
    pub fn redact(&self, args: &RawArgs) -> RawArgs {
        prepare::redact(args, &self.schema())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("feed", &self.feed).finish_non_exhaustive()
    }
}

/// All operations, imports first.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    import::ALL.iter().chain(export::ALL)
}

/// Finds an operation by its name on the wire.
pub fn find(name: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.name == name)
}

/// Finds the operation that a job's task names; the Java SDK spells one differently.
pub fn named(value: Option<Value>, faults: &mut Faults) -> Option<&'static Entry> {
    let name = match value {
        None | Some(Value::Null) => {
            faults.add("operation", "The operation field is required.");
            return None;
        }
        Some(Value::String(name)) => name,
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            faults.add("operation", "The operation must be a string.");
            return None;
        }
    };
    let found = find(without_alias(&name));
    if elsewhere::NAMES.contains(&name.as_str()) {
        faults.add("operation", elsewhere::sentence(&name));
    } else if found.is_none() {
        let near = all()
            .map(|entry| (strsim::jaro_winkler(entry.name, &name), entry.name))
            .filter(|(nearness, _)| *nearness > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near.map(|(_, near)| format!(" Did you mean {near}?")).unwrap_or_default();
        faults.add("operation", format!("The selected operation is invalid.{hint}"));
    }
    found
}

/// The name under which an operation is known here.
pub fn without_alias(name: &str) -> &str {
    if name == "import/azure-blob" { "import/azure/blob" } else { name }
}
