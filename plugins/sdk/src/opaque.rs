//! Parts of a call that no plugin can read. What reads text to guard it can be told to refuse what it cannot read.

use serde::Deserialize;

use crate::{Call, Content, ToolContent};

/// A kind of part without text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opaque {
    /// An image.
    Image,
    /// A part only its own dialect can say: documents, audio, search results.
    Other,
}

impl Opaque {
    /// The first part of the call that is one of these. Reads the whole call, if there is anything to look for.
    pub fn first_in(call: &Call, wanted: &[Self]) -> Option<Self> {
        if wanted.is_empty() {
            return None;
        }
        let wanted = |opaque: Self| wanted.contains(&opaque).then_some(opaque);
        call.turns(0, u32::MAX).iter().flat_map(|turn| &turn.content).find_map(|content| match content {
            Content::Image(_) => wanted(Self::Image),
            Content::Other(_) => wanted(Self::Other),
            Content::ToolResult(result) => result.content.iter().find_map(|answer| match answer {
                ToolContent::Image(_) => wanted(Self::Image),
                ToolContent::Other(_) => wanted(Self::Other),
                ToolContent::Text(_) => None,
            }),
            _ => None,
        })
    }

    /// For a message to people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Other => "parts of an unknown kind",
        }
    }
}
