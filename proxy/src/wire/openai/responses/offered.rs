//! The tools that a request offers: its list of them, and those that stand among the items of its input.
//!
//! Codex sends its own among the items to models of which it knows that they take them there, and has no list then. Read, they
//! are one list; no other dialect has a second place for tools. Those that a search of its own has found stand in the search's
//! result and nowhere else.

use super::tools::flat;
use crate::wire::json::Json;
use crate::wire::object::Object;
use crate::wire::put::comma;

/// The type word of an item that offers tools.
pub(super) const ITEM: &str = "additional_tools";

/// The type word of an item that says what a search for tools has found.
pub(super) const FOUND: &str = "tool_search_output";

/// Whether an item of the input offers tools and is nothing else.
pub(super) fn offers(item: Json<'_>) -> bool {
    item.get("type").and_then(Json::as_str).as_deref() == Some(ITEM)
}

/// The names, as functions, of the tools that an item offers.
pub(super) fn names(item: Json<'_>) -> Vec<String> {
    let name = |tool: Json<'_>| tool.get("name").and_then(Json::as_str).unwrap_or_default().into_owned();
    let mut names = Vec::new();
    for tool in item.get("tools").into_iter().flat_map(Json::items) {
        match tool.get("tools") {
            Some(inner) => {
                let space = name(tool);
                names.extend(inner.items().map(|tool| flat(Some(&space), &name(tool)).into_owned()));
            }
            None => names.push(name(tool)),
        }
    }
    names
}

/// The lists of tools among the items, each with the number of its item.
pub(super) fn among_items(request: &Object) -> impl Iterator<Item = (usize, Json<'_>)> {
    // Most requests have none, and to look for the word is much less than to read.
    let there = [ITEM, FOUND].iter().any(|word| memchr::memmem::find(request.source(), word.as_bytes()).is_some());
    let input = request.get("input").filter(|_| there);
    let items = input.into_iter().flat_map(Json::items).enumerate();
    let lists = |item: Json<'_>| matches!(item.get("type").and_then(Json::as_str).as_deref(), Some(ITEM | FOUND));
    items.filter(move |(_, item)| lists(*item)).filter_map(|(index, item)| Some((index, item.get("tools")?)))
}

/// All lists of tools.
pub(super) fn lists(request: &Object) -> impl Iterator<Item = Json<'_>> {
    request.get("tools").into_iter().chain(among_items(request).map(|(_, list)| list))
}

/// All of these lists as one, as JSON text.
pub(super) fn as_one(lists: &[Json<'_>]) -> String {
    let mut out = vec![b'['];
    for tool in lists.iter().copied().flat_map(Json::items) {
        comma(&mut out);
        out.extend_from_slice(tool.bytes());
    }
    out.push(b']');
    String::from_utf8(out).unwrap_or_default()
}
