//! One rule: conditions that must all hold, from the cheap to the dear. What looks into the conversation comes last: it reads the
//! whole call.

use regex_lite::Regex;
use tidegate_plugin::names::{Names, fits};
use tidegate_plugin::{Call, Destination, Opaque, request};

use crate::script::Script;

pub struct Rule {
    pub tag: String,
    pub destination: Destination,
    pub models: Names,
    pub organizations: Names,
    pub projects: Names,
    pub endpoints: Names,
    /// A header's name, and the pattern of its value.
    pub header: Option<(String, String)>,
    pub streamed: Option<bool>,
    pub tools: Option<bool>,
    pub images: Option<bool>,
    pub bytes: Range,
    pub chars: Range,
    pub min_turns: Option<u32>,
    pub pattern: Option<Regex>,
    pub scripts: Vec<Script>,
}

/// Bounds, each included.
#[derive(Clone, Copy)]
pub struct Range {
    pub least: Option<usize>,
    pub most: Option<usize>,
}

impl Rule {
    pub fn fits(&self, call: &Call) -> bool {
        self.fits_around(call) && self.fits_inside(call)
    }

    /// What is known without looking into the conversation.
    fn fits_around(&self, call: &Call) -> bool {
        let caller = request::caller();
        let header = |(name, value): &(String, String)| request::header(name).is_some_and(|found| fits(value, &found));
        self.models.choose(&call.model())
            && self.organizations.choose(&caller.organization)
            && self.projects.choose(&caller.project)
            && self.endpoints.choose(&request::endpoint())
            && self.streamed.is_none_or(|streamed| streamed == request::streamed())
            && self.header.as_ref().is_none_or(header)
            && (self.bytes.is_open() || self.bytes.holds(call.size() as usize))
    }

    fn fits_inside(&self, call: &Call) -> bool {
        let images = || Opaque::first_in(call, &[Opaque::Image]).is_some();
        let chars = || call.texts(0).iter().map(|passage| passage.text.chars().count()).sum();
        self.min_turns.is_none_or(|turns| call.turn_count() >= turns)
            && self.tools.is_none_or(|tools| tools != call.tools().is_empty())
            && self.fits_text(call)
            && (self.chars.is_open() || self.chars.holds(chars()))
            && self.images.is_none_or(|wanted| wanted == images())
    }

    fn fits_text(&self, call: &Call) -> bool {
        if self.pattern.is_none() && self.scripts.is_empty() {
            return true;
        }
        let text = call.last_user_text().unwrap_or_default();
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&text))
            && (self.scripts.is_empty() || Script::of(&text).is_some_and(|script| self.scripts.contains(&script)))
    }
}

impl Range {
    fn is_open(self) -> bool {
        self.least.is_none() && self.most.is_none()
    }

    fn holds(self, number: usize) -> bool {
        self.least.is_none_or(|least| number >= least) && self.most.is_none_or(|most| number <= most)
    }
}
