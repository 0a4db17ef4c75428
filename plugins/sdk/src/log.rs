//! Lines in the gateway's log. The plugin's name and the request id are added by the host; keep the message constant and
//! put what varies into fields, so that it can be searched for.

use std::fmt::Display;

use crate::host::log;

pub use crate::bindings::tidegate::plugin::log::Level;

/// What varies in a line.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

/// For who writes the plugin.
pub fn debug(message: &str, fields: Fields) {
    write(Level::Debug, message, fields);
}

/// Worth knowing.
pub fn info(message: &str, fields: Fields) {
    write(Level::Info, message, fields);
}

/// Something to look at.
pub fn warn(message: &str, fields: Fields) {
    write(Level::Warn, message, fields);
}

/// Something failed.
pub fn error(message: &str, fields: Fields) {
    write(Level::Error, message, fields);
}

fn write(level: Level, message: &str, fields: Fields) {
    let fields: Vec<(String, String)> =
        fields.iter().map(|(name, value)| ((*name).into(), value.to_string())).collect();
    log::write(level, message, &fields);
}
