//! A plugin out of core WebAssembly text, with no toolchain but the one this is built with.

use std::path::Path;

/// The component that the text of a module becomes, in the world of plugins.
pub fn component(text: &str) -> Vec<u8> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = above.map(|folder| folder.join("wit")).find(|wit| wit.is_dir()).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(&root).unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let mut module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
    wit_component::ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}
