//! One page of a list in the envelope that the contract has, without totals.

use schemars::JsonSchema;
use serde::Serialize;

use super::extract::Query;
use crate::model::Page;

/// Entries on a page unless the client says otherwise.
const SIZE: u32 = 100;
/// Entries on a page at the most; a client that asks for more gets so many, and sees it in `meta.per_page`.
const SIZE_MAX: u32 = 250;

/// A page on the wire.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct PageBody<T> {
    /// The entries, newest first.
    data: Vec<T>,
    /// Where the other pages are.
    links: PageLinks,
    /// Which page this is.
    meta: PageMeta,
}

/// Where the other pages are.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PageLinks {
    /// The first one.
    first: String,
    /// Always null: the end is not known.
    last: Option<String>,
    /// The one before.
    prev: Option<String>,
    /// The one after.
    next: Option<String>,
}

/// Which page this is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PageMeta {
    /// From 1.
    current_page: u32,
    /// Number of its first entry, from 1; null on an empty page.
    from: Option<u64>,
    /// Where the list is.
    path: String,
    /// Entries on a page.
    per_page: u32,
    /// Number of its last entry; null on an empty page.
    to: Option<u64>,
}

/// Which page a query asks for. What makes no sense counts as not given.
pub fn wanted(query: &Query) -> Page {
    let number = |name: &str| query.get(name).and_then(|text| text.trim().parse::<u32>().ok()).filter(|&n| n > 0);
    Page { number: number("page").unwrap_or(1), size: number("per_page").unwrap_or(SIZE).min(SIZE_MAX) }
}

/// Puts entries into the envelope. `path` is the list's full address, without a query.
pub fn envelope<T>(path: String, query: &Query, page: Page, has_more: bool, data: Vec<T>) -> PageBody<T> {
    let link = |number: u32| {
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(query.pairs().filter(|(name, _)| *name != "page"));
        format!("{path}?{}", pairs.append_pair("page", &number.to_string()).finish())
    };
    let before = u64::from(page.number - 1) * u64::from(page.size);
    let links = PageLinks {
        first: link(1),
        last: None,
        prev: (page.number > 1).then(|| link(page.number - 1)),
        next: has_more.then(|| link(page.number.saturating_add(1))),
    };
    let meta = PageMeta {
        current_page: page.number,
        from: (!data.is_empty()).then_some(before + 1),
        to: (!data.is_empty()).then_some(before + data.len() as u64),
        per_page: page.size,
        path,
    };
    PageBody { data, links, meta }
}
