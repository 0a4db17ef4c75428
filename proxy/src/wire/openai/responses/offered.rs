//! The tools that a request offers: its list of them, and those that stand among the items of its input.
//!
//! Codex sends its own among the items to models of which it knows that they take them there, and has no list then. Read, they
//! are one list; no other dialect has a second place for tools.

use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::put::comma;

/// The type word of an item that offers tools.
pub(super) const ITEM: &str = "additional_tools";

/// Whether an item of the input offers tools.
pub(super) fn offers(item: Json<'_>) -> bool {
    item.get("type").and_then(Json::as_str).as_deref() == Some(ITEM)
}

/// The lists of tools among the items, each with the number of its item.
pub(super) fn among_items(request: &Object) -> impl Iterator<Item = (usize, Json<'_>)> {
    // Almost no request has one, and to look for the word is much less than to read.
    let there = memchr::memmem::find(request.source(), ITEM.as_bytes()).is_some();
    let input = request.get("input").filter(|_| there);
    let items = input.into_iter().flat_map(Json::items).enumerate();
    items.filter(|(_, item)| offers(*item)).filter_map(|(index, item)| Some((index, item.get("tools")?)))
}

/// All lists of tools.
pub(super) fn lists(request: &Object) -> impl Iterator<Item = Json<'_>> {
    request.get("tools").into_iter().chain(among_items(request).map(|(_, list)| list))
}

/// All of them as one list, as JSON text.
pub(super) fn as_one(request: &Object) -> String {
    let mut out = vec![b'['];
    for tool in lists(request).flat_map(Json::items) {
        comma(&mut out);
        out.extend_from_slice(tool.bytes());
    }
    out.push(b']');
    String::from_utf8(out).unwrap_or_default()
}
