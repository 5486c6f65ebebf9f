//! Whatever is done with nodes in whatever order, what refused it included: once everything was given back nothing is
//! held.
#![allow(clippy::arithmetic_side_effects, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{attr, name, null};
use super::*;

/// Nodes that there may be, fewer than files.
const MOST: usize = 12;
const FILES: u64 = 24;

/// What is done with the node numbered so among those known, or with none that is.
#[derive(Clone, Debug)]
enum Deed {
    Find { parent: usize, name: u8, ino: u64, born: i64 },
    FindNameless { ino: u64 },
    Forget { node: usize, count: u64 },
    Open(usize),
    Close(usize),
    Hold(usize),
    Unname { node: usize, parent: usize, name: u8 },
    Rename { node: usize, parent: usize, name: u8 },
    Look(usize),
    Replace(usize),
    Beside { ino: u64 },
    Reset,
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = || 0..MOST + 2;
    let name = || 0..3_u8;
    prop_oneof![
        12 => (node(), name(), 2..FILES, 0..2_i64)
            .prop_map(|(parent, name, ino, born)| Deed::Find { parent, name, ino, born }),
        2 => (2..FILES).prop_map(|ino| Deed::FindNameless { ino }),
        6 => (node(), 1..4_u64).prop_map(|(node, count)| Deed::Forget { node, count }),
        2 => node().prop_map(Deed::Open),
        2 => node().prop_map(Deed::Close),
        4 => node().prop_map(Deed::Hold),
        3 => (node(), node(), name()).prop_map(|(node, parent, name)| Deed::Unname { node, parent, name }),
        5 => (node(), node(), name()).prop_map(|(node, parent, name)| Deed::Rename { node, parent, name }),
        2 => node().prop_map(Deed::Look),
        1 => node().prop_map(Deed::Replace),
        1 => (2..FILES).prop_map(|ino| Deed::Beside { ino }),
        1 => Just(Deed::Reset),
    ]
}

/// What a guest has: references and open handles of nodes, in the order of their numbers.
#[derive(Default)]
struct Has {
    lookups: BTreeMap<u64, u64>,
    opens: Vec<NodeId>,
}

impl Has {
    fn node(&self, index: usize) -> NodeId {
        index.checked_sub(1).map_or(ROOT, |index| NodeId(self.lookups.keys().nth(index).copied().unwrap_or(99)))
    }

    fn got(&mut self, node: Result<NodeId>) {
        if let Ok(node) = node {
            *self.lookups.entry(node.0).or_default() += 1;
        }
    }

    fn does(&mut self, nodes: &Nodes, deed: &Deed) {
        let called = |number: u8| name(["a", "b", "c"][usize::from(number)]);
        match *deed {
            Deed::Find { parent, name, ino, born } => {
                self.got(nodes.found(self.node(parent), &called(name), &attr(ino, born)));
            }
            Deed::FindNameless { ino } => self.got(nodes.nameless(&attr(ino, 0), null())),
            Deed::Forget { node, count } => {
                let NodeId(number) = self.node(node);
                nodes.forget(NodeId(number), count);
                if self.lookups.get(&number).is_some_and(|has| *has <= count) {
                    self.lookups.remove(&number);
                } else if let Some(has) = self.lookups.get_mut(&number) {
                    *has -= count;
                }
            }
            Deed::Open(node) => {
                nodes.opened(self.node(node));
                self.opens.push(self.node(node));
            }
            Deed::Close(index) if !self.opens.is_empty() => {
                let node = self.opens.swap_remove(index % self.opens.len());
                nodes.closed(node);
            }
            Deed::Close(_) => {}
            Deed::Hold(node) => drop(nodes.hold(self.node(node), Arc::new(null()))),
            Deed::Unname { node, parent, name } => {
                nodes.unnamed(self.node(node), self.node(parent), &called(name), Arc::new(null()));
            }
            Deed::Rename { node, parent, name } => {
                nodes.renamed(self.node(node), self.node(parent), &called(name));
            }
            Deed::Look(node) => self.got(nodes.seen(self.node(node)).map(|(parent, _)| parent)),
            Deed::Replace(node) => nodes.replaced(self.node(node)),
            Deed::Beside { ino } => {
                let Ok(beside) = nodes.beside(4) else { return };
                let _ = beside.found(ROOT, &called(0), &attr(ino, 0));
            }
            Deed::Reset => {
                nodes.reset();
                self.lookups.clear();
                self.opens.clear();
            }
        }
    }

    fn gives_back(self, nodes: &Nodes) {
        self.opens.into_iter().for_each(|node| nodes.closed(node));
        self.lookups.into_iter().for_each(|(node, count)| nodes.forget(NodeId(node), count));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_given_back_is_not_held_whatever_was_done_with_it(deeds in vec(deed(), 1..80)) {
        let nodes = Nodes::new(null().into(), &attr(1, 0), 4, MOST).unwrap();
        let mut has = Has::default();
        for deed in &deeds {
            has.does(&nodes, deed);
            prop_assert!(nodes.count().0 <= MOST + 1);
        }
        has.gives_back(&nodes);
        prop_assert_eq!(nodes.count().0, 1, "the root alone");
        // As many as at first, and no more.
        let again = (0..MOST as u64).all(|ino| nodes.found(ROOT, &name("n"), &attr(100 + ino, 0)).is_ok());
        prop_assert!(again);
        prop_assert_eq!(nodes.room(), Err(Errno::ENFILE));
    }
}
