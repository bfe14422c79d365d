//! Operations between the file store and a foreign storage. An export says its [`Destination`], an import its
//! [`Origin`]; everything else is the same for all of them.

use std::marker::PhantomData;
use std::sync::Arc;

use connectors::{Connector, Network, OpenUpload};

use super::arguments::Arguments;
use super::export::Naming;
use super::permissions::Permissions;
use super::{Context, Feed, Operation, Outcome};
use crate::error::{Faults, TaskError};

/// Where an export puts files, and what it calls them.
#[derive(Debug)]
pub struct Destination {
    /// Reaches it.
    pub connector: Arc<dyn Connector>,
    /// What files are called there.
    pub naming: Naming,
}

/// Where an import gets files from.
#[derive(Debug)]
pub struct Origin {
    /// Reaches it.
    pub connector: Arc<dyn Connector>,
    /// Which files.
    pub wanted: Wanted,
    /// What the file is called here, if it is one.
    pub filename: Option<String>,
}

/// Which objects of a storage an import wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one of this name.
    One(String),
    /// All whose name begins so; for a file server, the files of this directory.
    All(String),
}

impl Wanted {
    /// One by its exact name, or all by their prefix. Empty counts as not given; neither is refused by
    /// [`Self::check`] when the task is made.
    pub fn of(exact: Option<&String>, prefix: Option<&String>) -> Self {
        match exact.filter(|exact| !exact.is_empty()) {
            Some(exact) => Self::One(exact.clone()),
            None => Self::All(prefix.cloned().unwrap_or_default()),
        }
    }

    /// Refuses both, and neither.
    pub fn check(faults: &mut Faults, exact: (&str, Option<&String>), prefix: (&str, Option<&String>)) {
        let is_given = |text: Option<&String>| text.is_some_and(|text| !text.is_empty());
        match (is_given(exact.1), is_given(prefix.1)) {
            (true, true) => {
                faults.add(prefix.0, format!("The {} field cannot be used together with {}.", prefix.0, exact.0));
            }
            (false, false) => {
                faults.add(exact.0, format!("The {} field is required when {} is not present.", exact.0, prefix.0));
            }
            (true, false) | (false, true) => {}
        }
    }
}

/// An export to a storage.
pub trait ToStorage: Send + Sync + 'static {
    /// As on the wire: `export/s3`.
    const NAME: &'static str;
    /// Its arguments.
    type Args: Arguments + 'static;

    /// Checks what spans fields; bounds of single fields are attributes.
    fn check(_args: &Self::Args, _faults: &mut Faults) {}

    /// Where the files go. Contacts nobody.
    ///
    /// # Errors
    /// Credentials or addresses that cannot be read.
    fn destination(args: &Self::Args, network: &Network) -> connectors::Result<Destination>;

    /// What these arguments must be allowed at the destination, and how to allow it.
    fn permissions(_args: &Self::Args) -> Option<Permissions> {
        None
    }
}

/// An import from a storage.
pub trait FromStorage: Send + Sync + 'static {
    /// As on the wire: `import/s3`.
    const NAME: &'static str;
    /// Its arguments.
    type Args: Arguments + 'static;

    /// Checks what spans fields; bounds of single fields are attributes.
    fn check(_args: &Self::Args, _faults: &mut Faults) {}

    /// Where the files come from. Contacts nobody.
    ///
    /// # Errors
    /// Credentials or addresses that cannot be read.
    fn origin(args: &Self::Args, network: &Network) -> connectors::Result<Origin>;
}

/// The operation that a [`ToStorage`] describes.
#[derive(Debug)]
pub struct Export<S>(PhantomData<S>);

impl<S: ToStorage> Operation for Export<S> {
    const NAME: &'static str = S::NAME;
    const FEED: Feed = Feed::Inputs;
    type Args = S::Args;

    fn check(args: &S::Args, faults: &mut Faults) {
        S::check(args, faults);
    }

    async fn run(args: S::Args, task: Context) -> Result<Outcome, TaskError> {
        let Destination { connector, naming } = S::destination(&args, &task.network)?;
        task.deliver(connector, &naming).await
    }

    async fn abort(args: S::Args, open: OpenUpload, network: Network) -> connectors::Result<()> {
        S::destination(&args, &network)?.connector.abort(&open).await
    }
}

/// The operation that a [`FromStorage`] describes.
#[derive(Debug)]
pub struct Import<S>(PhantomData<S>);

impl<S: FromStorage> Operation for Import<S> {
    const NAME: &'static str = S::NAME;
    const FEED: Feed = Feed::Itself;
    type Args = S::Args;

    fn check(args: &S::Args, faults: &mut Faults) {
        S::check(args, faults);
    }

    async fn run(args: S::Args, task: Context) -> Result<Outcome, TaskError> {
        let origin = S::origin(&args, &task.network)?;
        task.fetch(origin).await
    }
}
