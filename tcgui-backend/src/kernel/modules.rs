//! Which modules the kernel has: loaded, built in, or in the directory from which `modprobe` loads them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Limit of each file in bytes: `/proc/kallsyms` has about 10 MB.
const LARGEST: u64 = 64 * 1024 * 1024;

/// A module, with a function that only it defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// The name, as in `modprobe NAME`.
    pub name: &'static str,
    /// A function in `/proc/kallsyms`. It shows that the module is built in where no list of built-in modules is installed.
    pub function: &'static str,
}

/// Where the kernel has a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is loaded.
    Loaded,
    /// It is part of the kernel.
    BuiltIn,
    /// The kernel loads it when it is needed.
    Loadable,
    /// It could be loaded, but the kernel refuses to load modules (`kernel.modules_disabled`).
    LoadingDisabled,
    /// It is not installed for this kernel.
    Missing,
}

/// Returns the release of the running kernel, as `uname -r` prints it.
///
/// # Errors
/// `/proc` is not mounted.
pub fn release() -> io::Result<String> {
    Ok(text("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Returns where the running kernel has each of these modules. Loads none of them.
///
/// # Errors
/// As [`release`].
pub fn look(modules: &[Module]) -> io::Result<Vec<(Module, Presence)>> {
    let directory = PathBuf::from("/lib/modules").join(release()?);
    let built_in = text(directory.join("modules.builtin")).unwrap_or_default();
    let loadable = text(directory.join("modules.dep")).unwrap_or_default();
    let is_disabled =
        text("/proc/sys/kernel/modules_disabled").is_ok_and(|text| text.trim() != "0");
    let functions = functions(modules);
    let presence = |module: Module| match () {
        () if is_loaded(module.name) => Presence::Loaded,
        () if is_listed(&built_in, module.name) => Presence::BuiltIn,
        () if functions.contains(&module.function) => Presence::BuiltIn,
        () if !is_listed(&loadable, module.name) => Presence::Missing,
        () if is_disabled => Presence::LoadingDisabled,
        () => Presence::Loadable,
    };
    Ok(modules
        .iter()
        .map(|module| (*module, presence(*module)))
        .collect())
}

fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// A module of this name has a directory in sysfs. Some built-in ones have one too.
fn is_loaded(name: &str) -> bool {
    fs::exists(Path::new("/sys/module").join(name)).unwrap_or(false)
}

/// Returns whether a line of `modules.builtin` or `modules.dep` (`man 5 modules.dep`) begins with the path of the module. The
/// file may be compressed: `sch_netem.ko.xz`.
fn is_listed(list: &str, name: &str) -> bool {
    list.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        // File names may have '-' where the module has '_'.
        let stem = file.split('.').next().unwrap_or_default().replace('-', "_");
        stem == name
    })
}

/// Returns the functions of these modules that the kernel contains. Empty without `/proc/kallsyms`.
fn functions(modules: &[Module]) -> Vec<&'static str> {
    let Ok(file) = File::open("/proc/kallsyms") else {
        return Vec::new();
    };
    let lines = BufReader::new(file.take(LARGEST)).lines();
    let mut found = Vec::new();
    for line in lines.map_while(Result::ok) {
        let symbol = line.split_whitespace().nth(2);
        let module = modules
            .iter()
            .find(|module| symbol == Some(module.function));
        found.extend(module.map(|module| module.function));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_modules_are_understood() {
        let list = "kernel/net/sched/sch_netem.ko.xz: kernel/lib/crc.ko.xz\n\
                    kernel/net/sched/act-mirred.ko:\nkernel/drivers/net/ifb.ko\n";
        for name in ["sch_netem", "act_mirred", "ifb"] {
            assert!(is_listed(list, name), "{name}");
        }
        for name in ["sch_tbf", "crc", "netem", "sch_netem_more", ""] {
            assert!(!is_listed(list, name), "{name}");
        }
    }

    #[test]
    fn a_function_of_the_kernel_is_found() {
        let module = |function| Module { name: "", function };
        let modules = [module("kfree"), module("no_such_function_anywhere")];
        assert_eq!(functions(&modules), ["kfree"]);
    }
}
