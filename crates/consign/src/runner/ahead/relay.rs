//! The journal of a head start: its lines are written through whoever may write them at the moment.

use std::sync::Arc;

use async_trait::async_trait;
use connectors::{Journal, OpenUpload, Part, Result};

use super::{State, stopped};

/// Writes lines through whoever may write them now, and waits while that is nobody.
#[derive(Debug)]
pub(super) struct Relay(pub(super) Arc<State>);

/// What is to be written.
#[derive(Clone, Copy)]
enum Line<'a> {
    Opened(&'a OpenUpload),
    Part(&'a str, u32, &'a Part),
    Closed(&'a str),
}

impl Relay {
    async fn write(&self, line: Line<'_>) -> Result<()> {
        let mut holder = self.0.holder.subscribe();
        loop {
            let journal = holder.wait_for(Option::is_some).await.map_err(|_| stopped())?.clone();
            let Some(journal) = journal else { continue };
            let written = match line {
                Line::Opened(open) => journal.opened(open).await,
                Line::Part(target, number, part) => journal.part(target, number, part).await,
                Line::Closed(target) => journal.closed(target).await,
            };
            // It may have been refused because the right to write has passed on: then the next one writes it.
            if written.is_ok() || !holder.has_changed().unwrap_or(false) {
                return written;
            }
        }
    }
}

#[async_trait]
impl Journal for Relay {
    async fn opened(&self, open: &OpenUpload) -> Result<()> {
        self.0.note(|noted| *noted = Some(open.clone()));
        // Without a handle, the storage is about to be asked.
        if let Some(place) = self.0.place.get().filter(|_| !open.handle.is_empty()) {
            place.opened(open.part_bytes);
        }
        self.write(Line::Opened(open)).await
    }

    async fn part(&self, target: &str, number: u32, part: &Part) -> Result<()> {
        // A part that grows is counted once.
        let before = self.0.note(|noted| noted.as_mut().and_then(|open| open.parts.insert(number, part.clone())));
        if let Some(place) = self.0.place.get() {
            place.acknowledged(part.size.saturating_sub(before.map_or(0, |before| before.size)));
        }
        self.write(Line::Part(target, number, part)).await
    }

    async fn closed(&self, target: &str) -> Result<()> {
        self.0.note(|noted| *noted = None);
        self.write(Line::Closed(target)).await
    }
}
