//! Calls that a client of this dialect runs and that are of no function: a search for further tools, a shell. Elsewhere they
//! are calls of functions that bear their names.

use super::Turns;
use crate::canon::call::{Content, Turn};
use crate::wire::check::{At, Fields};
use crate::wire::json::Json;
use crate::wire::openai::responses::offered;
use crate::wire::openai::tools::SEARCH;

impl Turns<'_> {
    /// A search for tools: a call like others, but that its arguments are an object.
    pub(super) fn search(&mut self, at: &At<'_>, item: &Fields<'_>) {
        self.lose_beyond(item, &["type", "id", "status", "call_id", "execution", "arguments"]);
        let Some(id) = self.check.need_text(at, item, "call_id") else { return };
        let arguments = item.get("arguments").map_or("{}", Json::raw).to_owned();
        self.said(Content::ToolCall { id, name: SEARCH.into(), arguments });
    }

    /// What it found: the tools are with the others, see `tools`.
    pub(super) fn found(&mut self, at: &At<'_>, item: &Fields<'_>, json: Json<'_>) {
        self.lose_beyond(item, &["type", "id", "status", "call_id", "execution", "tools"]);
        let Some(id) = self.check.need_text(at, item, "call_id") else { return };
        let content = vec![Content::Other { kind: offered::FOUND.into(), json: json.raw().to_owned() }];
        Turn::add_result(&mut self.turns, id, content);
    }

    /// A command for the client's shell. Its output comes as any function's, and would be of nothing without it.
    pub(super) fn shell(&mut self, at: &At<'_>, item: &Fields<'_>) {
        self.lose_beyond(item, &["type", "id", "status", "call_id", "action"]);
        let Some(action) = self.check.need(at, item, "action") else { return };
        let Some(id) = item.text("call_id").or_else(|| item.text("id")) else {
            return self.check.wrong(&at.key("call_id"), "missing", "Field required", None);
        };
        let arguments = action.raw().to_owned();
        self.said(Content::ToolCall { id: id.into_owned(), name: "local_shell".into(), arguments });
    }
}
