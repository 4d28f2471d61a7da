//! The order of the rooms: a room uses rooms below it only, and no files use each other in a circle.
//!
//! The three crates are one order: modules of `src/inference` are rooms like those of the program, `src/kernels` is one room.
//!
//! Read from the source as text: `use` lines, and paths that begin with `crate::` or `super::`. Tests inside of files
//! may use what they like, and so may a room's own `tests` files.

mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use imports::{File, Sources};

/// The rooms from the top down. Those of one line may not use each other either, unless they are named in [`BESIDE`].
const ORDER: [&[&str]; 12] = [
    &["main"],
    &["cli"],
    &["tui"],
    &["plan"],
    &["bench", "config", "demo", "document"],
    &["engine"],
    &["quality"],
    &["model"],
    &["attention"],
    &["cache"],
    &["kernels"],
    &["telemetry", "progress", "files", "text"],
];

/// Pairs of one line of which the first may use the second.
const BESIDE: [(&str, &str); 0] = [];

fn source() -> Sources {
    Sources::read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn floor(room: &str) -> Option<usize> {
    ORDER.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn every_room_has_a_place_in_the_order() {
    let rooms: BTreeSet<String> = source().files.iter().map(File::room).collect();
    let placed: BTreeSet<String> = ORDER.iter().flat_map(|rooms| rooms.iter().map(|room| (*room).to_owned())).collect();
    assert_eq!(rooms.into_iter().filter(|room| room != "lib").collect::<BTreeSet<_>>(), placed);
}

#[test]
fn a_room_uses_rooms_below_it_only() {
    let mut wrong = Vec::new();
    let source = source();
    for file in source.files.iter().filter(|file| file.room() != "lib") {
        for target in &file.uses {
            let (from, to) = (file.room(), target.first().cloned().unwrap_or_default());
            let (Some(above), Some(below)) = (floor(&from), floor(&to)) else { continue };
            let beside = BESIDE.iter().any(|(a, b)| (*a, *b) == (from.as_str(), to.as_str()));
            if from != to && below <= above && !beside {
                wrong.push(format!("{} uses {}", file.path, target.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "rooms use rooms that are not below them:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let source = source();
    let mut graph: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (at, file) in source.files.iter().enumerate() {
        let targets = file.uses.iter().filter_map(|path| source.file_of(path)).filter(|&to| to != at);
        graph.entry(at).or_default().extend(targets);
    }
    let circles = circles(&graph);
    let names = |circle: &Vec<usize>| circle.iter().map(|&at| source.files[at].path.as_str()).collect::<Vec<_>>();
    let found: Vec<String> = circles.iter().map(|circle| names(circle).join(", ")).collect();
    assert!(found.is_empty(), "circles of files:\n{}", found.join("\n"));
}

/// Sets of more than one node of which each reaches every other.
fn circles(graph: &BTreeMap<usize, BTreeSet<usize>>) -> Vec<Vec<usize>> {
    let reach: BTreeMap<usize, BTreeSet<usize>> = graph.keys().map(|&from| (from, reachable(graph, from))).collect();
    let mut found: Vec<Vec<usize>> = Vec::new();
    for &at in graph.keys() {
        let circle: Vec<usize> = reach[&at].iter().copied().filter(|to| reach[to].contains(&at)).collect();
        if circle.contains(&at) && circle.first() == Some(&at) {
            found.push(circle);
        }
    }
    found
}

/// What can be reached from a node; the node itself only by a circle.
fn reachable(graph: &BTreeMap<usize, BTreeSet<usize>>, from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<usize> = graph[&from].iter().copied().collect();
    while let Some(at) = next.pop() {
        if seen.insert(at) {
            next.extend(graph.get(&at).into_iter().flatten());
        }
    }
    seen
}

#[test]
fn circles_are_found() {
    let graph = [(1, vec![2]), (2, vec![3]), (3, vec![2, 4]), (4, vec![])];
    let graph = graph.into_iter().map(|(from, to)| (from, to.into_iter().collect())).collect();
    assert_eq!(circles(&graph), [vec![2, 3]]);
}

/// What is used is found in `use` lines and in paths, within a crate and across them.
#[test]
fn uses_are_found_in_all_three_crates() {
    let source = source();
    let uses = |from: &str, to: &str| {
        let at = source.files.iter().position(|file| file.path == to);
        let file =
            source.files.iter().find(|file| file.path == from).unwrap_or_else(|| panic!("there is no file {from}"));
        file.uses.iter().any(|path| source.file_of(path) == at && at.is_some())
    };
    assert!(uses("main.rs", "cli/mod.rs"), "main uses cli");
    assert!(uses("kernels/linear.rs", "kernels/packed.rs"), "a kernel uses its neighbour");
    assert!(uses("inference/model/weights.rs", "kernels/linear.rs"), "the model uses the kernels");
}
