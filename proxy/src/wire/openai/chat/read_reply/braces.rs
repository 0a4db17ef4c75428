//! Where a tool call's arguments end: servers that miscount their calls do not say it.

/// Follows JSON text fragment by fragment until its brackets balance.
#[derive(Default)]
pub(super) struct Braces {
    depth: usize,
    string: bool,
    escape: bool,
    begun: bool,
}

impl Braces {
    pub fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escape => self.escape = false,
                b'\\' if self.string => self.escape = true,
                b'"' => self.string = !self.string,
                _ if self.string => {}
                b'{' | b'[' => {
                    self.depth += 1;
                    self.begun = true;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    pub fn complete(&self) -> bool {
        self.begun && self.depth == 0
    }
}
