//! The harness of the end-to-end suites: the real `tcgui-backend`, the real kernel, the real bus.
//!
//! | module | gives |
//! |---|---|
//! | [`lab`] | private mount and network namespaces, one per test; the macro for tests |
//! | [`process`] | programs that end with their parent, and programs that must succeed |
//! | [`daemon`] | the built binary: start, stop, and resource usage |
//! | [`doorbells`] | disables and restores the daemon's change notifications |
//! | [`fuse`] | a file system that never replies |
//! | [`frontend`] | how released frontends join the bus, and their subscriptions |
//! | [`client`] | a frontend that depends only on the wire |
//! | [`peer`] | members of the bus in separate processes |
//! | [`netns`] | changes of `/run/netns`, and its actual content |
//! | [`unnamed`] | processes in network namespaces without a name, and their entries in lists |
//! | [`links`] | changes of links, and the resulting lists |
//! | [`names`] | the wire form of a namespace name |
//! | [`scene`] | a daemon with a client, and the leak check at the end of every test |
//! | [`engines`] | Docker and Podman, started by the test |
//! | [`containers`] | the listed containers |
//! | [`netem_kernel`] | runs tests on a kernel that has netem, or on an older one |
//! | [`machine`] | the machine on which a measurement runs |
//! | [`measure`] | summaries of measured times |
//! | [`random`] | random numbers from a seed |
//! | [`verbs`] | runs the verbs of the command line |
//! | [`schema`] | validates documents against the schemas in `docs/schema` |
//! | [`wait`] | waiting for a condition |
//!
//! No module uses the crates of the product, because an error in them would affect both sides of a test.

pub mod client;
pub mod containers;
pub mod daemon;
pub mod doorbells;
pub mod engines;
pub mod frontend;
pub mod fuse;
pub mod lab;
pub mod links;
pub mod machine;
pub mod measure;
pub mod names;
pub mod netem_kernel;
pub mod netns;
pub mod peer;
pub mod process;
pub mod random;
pub mod scene;
pub mod schema;
pub mod unnamed;
pub mod verbs;
pub mod wait;
