//! How a listing goes on from page to page, and that it comes to an end.

use crate::error::{Error, Kind, Result};

/// Pages without an entry, one after the other, before a listing is given up: they are allowed, but not for ever.
const EMPTY_PAGES_MAX: u32 = 100;

/// Where a listing stands.
#[derive(Debug)]
pub(crate) struct Pages<M> {
    mark: Option<M>,
    empty: u32,
}

impl<M: PartialEq> Pages<M> {
    pub(crate) fn new() -> Self {
        Self { mark: None, empty: 0 }
    }

    /// What the next page is asked for with; nothing for the first one.
    pub(crate) fn mark(&self) -> Option<&M> {
        self.mark.as_ref()
    }

    /// Turns a page, which may say how to go on. False when it was the last one.
    ///
    /// # Errors
    /// [`Kind::Protocol`] when the listing stands still.
    pub(crate) fn turn(&mut self, action: &'static str, is_empty: bool, next: Option<M>) -> Result<bool> {
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        if next.is_some() && (next == self.mark || self.empty >= EMPTY_PAGES_MAX) {
            return Err(Error::new(Kind::Protocol, action, "the listing does not come to an end"));
        }
        self.mark = next;
        Ok(self.mark.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_that_stands_still_is_given_up() {
        let mut pages = Pages::new();
        assert!(pages.turn("listing", false, Some(1)).unwrap() && pages.mark() == Some(&1));
        assert_eq!(pages.turn("listing", false, Some(1)).unwrap_err().kind, Kind::Protocol);
        assert!(!pages.turn("listing", false, None).unwrap());
        let mut pages = Pages::new();
        for _ in 0..3 {
            for number in 1..EMPTY_PAGES_MAX {
                assert!(pages.turn("listing", true, Some(number)).unwrap());
            }
            assert!(pages.turn("listing", false, Some(0)).unwrap(), "an entry came");
        }
        for number in 1..EMPTY_PAGES_MAX {
            pages.turn("listing", true, Some(number)).unwrap();
        }
        assert_eq!(pages.turn("listing", true, Some(0)).unwrap_err().kind, Kind::Protocol);
    }
}
