//! The harness of the end-to-end suites: the real `tcgui-backend`, the real kernel, the real bus.
//!
//! | module | gives |
//! |---|---|
//! | [`lab`] | private mount and network namespaces, one per test; the macro for tests |
//! | [`process`] | programs that end with their parent, and programs that must succeed |
//! | [`daemon`] | the built binary: start, stop, and what it costs |
//! | [`doorbells`] | the daemon's sources of news: taken away and given back |
//! | [`fuse`] | a file system that never answers |
//! | [`frontend`] | how released frontends join the bus and what they listen to |
//! | [`client`] | a frontend that knows nothing but the wire |
//! | [`peer`] | members of the bus in processes of their own |
//! | [`netns`] | what an administrator does to `/run/netns`, and what is really there |
//! | [`unnamed`] | processes in network namespaces that have no name, and what lists say of them |
//! | [`links`] | what an administrator does to links, and what the list then says |
//! | [`names`] | how a namespace name must look on the wire |
//! | [`scene`] | daemon and client together, and the check that ends every test |
//! | [`engines`] | Docker and Podman, started by hand |
//! | [`containers`] | which of their containers are shown |
//! | [`netem_kernel`] | runs tests on a kernel that has netem, or on an older one |
//! | [`machine`] | the machine on which something is measured |
//! | [`measure`] | times, summarised and reported |
//! | [`random`] | numbers from a seed |
//! | [`wait`] | the only way to wait |
//!
//! Nothing here uses the product's own crates: an error in them must not hide itself.

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
pub mod unnamed;
pub mod wait;
