//! Imports go down only, and rooms on one floor do not see each other (docs/ARCHITECTURE.md).

use std::path::Path;

/// Rooms by floor, from the ground up. `main.rs` and `lib.rs` are the roof.
const FLOORS: &[&[&str]] = &[
    &["canon"],
    &["wire", "store", "trust", "cork"],
    &["gate", "route", "queue", "backend", "plugin", "ledger"],
    &["relay"],
    &["server", "admin"],
    &["config", "app", "cli"],
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    let mut seen = 0;
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(&root).unwrap();
            let room =
                inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let Some(here) = floor(&room) else {
                if !["lib", "main"].contains(&room.as_str()) {
                    broken.push(format!("{room} is on no floor"));
                }
                continue;
            };
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                for piece in line.split("crate::").skip(1) {
                    // `use crate::{a, b}` names several rooms at once.
                    let names: Vec<&str> = match piece.strip_prefix('{') {
                        Some(list) => list
                            .split(&[',', '}'][..])
                            .map(|name| name.trim().split("::").next().unwrap_or_default())
                            .collect(),
                        None => vec![
                            piece
                                .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                                .next()
                                .unwrap(),
                        ],
                    };
                    for other in names.into_iter().filter(|name| *name != room) {
                        let Some(there) = floor(other) else { continue };
                        seen += 1;
                        let top = FLOORS.len() - 1;
                        if there > here
                            || (there == here && here != top)
                            || (other == "config" && room != "app" && room != "cli")
                            || (room == "config" && there == top)
                        {
                            broken.push(format!(
                                "{}:{}: {room} (floor {here}) sees {other} (floor {there})",
                                inside.display(),
                                number + 1
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(seen > 50, "the test finds imports at all: {seen}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
