//! What the interface's package generates, untouched. Plugins use it through the names this crate gives it; here it is
//! public for the `export!` macro, and for whoever needs a corner that has no nicer name yet.

// Generated code: it must lift raw pointers, and its comments are the interface's.
#![allow(unsafe_code, missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "plugin",
    pub_export_macro: true,
    default_bindings_module: "tidegate_plugin::bindings",
    additional_derives: [PartialEq, Clone, serde::Serialize, serde::Deserialize],
    // `admission` holds a resource, `description` holds flags: neither can be copied into JSON.
    additional_derives_ignore: ["admission", "description"],
});
