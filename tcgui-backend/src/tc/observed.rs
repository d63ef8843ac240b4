//! The state of the root of a link, as far as it matters for a netem.

use super::handle::{self, Tables};
use crate::kernel::netem::Netem;
use crate::kernel::qdisc::{Qdisc, QdiscStatistics};

/// The qdiscs of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The root qdisc.
    pub root: Root,
    /// The handles of all qdiscs of the link.
    pub in_use: Vec<u32>,
    /// The handle of the daemon's bottleneck below the root.
    pub bottleneck: Option<u32>,
    /// The kinds and handles of the other children of the root.
    pub children: Vec<QdiscName>,
    /// The netems of the link that are not the root.
    pub netems_below: Vec<Netem>,
    /// The counters of the root.
    pub statistics: QdiscStatistics,
}

/// The root qdisc, classified by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// No root qdisc is listed: the link was never up or does not exist.
    Absent,
    /// The kernel's default. It returns when the daemon's netem is deleted. Its handle is 0.
    Default {
        /// For instance `noqueue`, or `mq` with a child for each queue.
        kind: String,
    },
    /// A netem with a handle of the daemon.
    Own {
        /// The handle.
        handle: u32,
        /// Its parameters.
        netem: Netem,
    },
    /// A netem of another program.
    ForeignNetem {
        /// Its handle.
        handle: u32,
        /// Its parameters.
        netem: Netem,
    },
    /// Another qdisc that was configured by a program.
    Foreign(QdiscName),
}

/// The kind and handle of a qdisc, as `tc` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QdiscName {
    /// For instance `htb`.
    pub kind: String,
    /// Its handle.
    pub handle: u32,
}

impl std::fmt::Display for QdiscName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, handle::text(self.handle))
    }
}

impl Observed {
    /// Returns the qdiscs of one link from the dump of its namespace.
    pub fn new(qdiscs: &[Qdisc], ifindex: u32) -> Self {
        let of_link = || qdiscs.iter().filter(|qdisc| qdisc.ifindex == ifindex);
        let Some(root) = of_link().find(|qdisc| qdisc.is_root()) else {
            return Self {
                root: Root::Absent,
                in_use: Vec::new(),
                bottleneck: None,
                children: Vec::new(),
                netems_below: Vec::new(),
                statistics: QdiscStatistics::default(),
            };
        };
        let children = || of_link().filter(|qdisc| qdisc.is_child_of(root));
        let below = children().find(|child| child.tbf.is_some());
        let own = |child: &&Qdisc| child.tbf.is_some() && handle::is_bottleneck(child.handle);
        let bottleneck = children().find(own);
        let mut of_root = Root::new(root);
        match &mut of_root {
            Root::Own { netem, .. } => netem.bottleneck = bottleneck.and_then(|it| it.tbf),
            Root::ForeignNetem { netem, .. } => netem.bottleneck = below.and_then(|it| it.tbf),
            Root::Absent | Root::Default { .. } | Root::Foreign(_) => {}
        }
        let is_ours = matches!(of_root, Root::Own { .. });
        let bottleneck = bottleneck.map(|it| it.handle).filter(|_| is_ours);
        Self {
            root: of_root,
            in_use: of_link().map(|qdisc| qdisc.handle).collect(),
            bottleneck,
            children: children()
                .filter(|child| Some(child.handle) != bottleneck)
                .map(QdiscName::of)
                .collect(),
            netems_below: of_link()
                .filter(|qdisc| !qdisc.is_root())
                .filter_map(|qdisc| qdisc.netem)
                .collect(),
            statistics: root.statistics,
        }
    }

    /// Returns the netem at the root: of the daemon or of another program.
    pub fn netem(&self) -> Option<&Netem> {
        match &self.root {
            Root::Own { netem, .. } | Root::ForeignNetem { netem, .. } => Some(netem),
            Root::Absent | Root::Default { .. } | Root::Foreign(_) => None,
        }
    }
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("none"),
            Self::Default { kind } => write!(f, "{kind} 0:"),
            Self::Own { handle, .. } | Self::ForeignNetem { handle, .. } => {
                write!(f, "netem {}", handle::text(*handle))
            }
            Self::Foreign(name) => name.fmt(f),
        }
    }
}

impl Root {
    /// Returns the handle. 0: there is none.
    pub fn handle(&self) -> u32 {
        match self {
            Self::Absent | Self::Default { .. } => 0,
            Self::Own { handle, .. } | Self::ForeignNetem { handle, .. } => *handle,
            Self::Foreign(name) => name.handle,
        }
    }

    fn new(root: &Qdisc) -> Self {
        // The kernel's default can be a netem (`net.core.default_qdisc`). Defaults have handle 0.
        if root.handle == 0 {
            return Self::Default {
                kind: root.kind.clone(),
            };
        }
        let handle = root.handle;
        match (root.netem, handle::tables(handle)) {
            (Some(netem), Some(tables)) => Self::Own {
                handle,
                netem: with_tables(netem, tables),
            },
            (Some(netem), None) => Self::ForeignNetem { handle, netem },
            (None, _) => Self::Foreign(QdiscName::of(root)),
        }
    }
}

/// Adds the distribution tables, which the kernel does not report, if they are in use.
fn with_tables(mut netem: Netem, tables: Tables) -> Netem {
    netem.distribution = tables.delay.filter(|_| netem.jitter_ns > 0);
    if let Some(slot) = &mut netem.slot {
        slot.distribution = tables.slot;
    }
    netem
}

impl QdiscName {
    fn of(qdisc: &Qdisc) -> Self {
        Self {
            kind: qdisc.kind.clone(),
            handle: qdisc.handle,
        }
    }
}
