//! Namespaces of Linux, entered by a process that is about to become another program: a new world for a whole mesh, or the
//! place of one workload in it. As an ordinary user too: whoever makes a user namespace may do in it what root may.
//!
//! All of this is done before there is a second thread, in a process of its own that `exec`s afterwards.

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Pid, PidfdFlags, getegid, geteuid, pidfd_open};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, capabilities,
    clear_ambient_capability_set, configure_capability_in_ambient_set, move_into_link_name_space,
    move_into_thread_name_spaces, remove_capability_from_bounding_set, set_capabilities,
};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// What a mesh needs in its own world: to make namespaces, and to set up networks in them.
const OF_A_MESH: [CapabilitySet; 2] = [CapabilitySet::SYS_ADMIN, CapabilitySet::NET_ADMIN];
/// What a sidecar needs: to mark what it sends.
const OF_A_SIDECAR: CapabilitySet = CapabilitySet::NET_ADMIN;

/// Where the names of services are asked for, and by which means.
const RESOLVER: &str = "/etc/resolv.conf";
const LOOKUPS: &str = "/etc/nsswitch.conf";

/// Leaves for a new world: networks and mounts of its own, and, unless we may do without, users of its own.
pub(crate) fn leave_for_new() -> Result<(), String> {
    let world = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    let (uid, gid) = (geteuid(), getegid());
    match unshare(world) {
        Ok(()) => {}
        Err(Errno::PERM) => {
            unshare(world | UnshareFlags::NEWUSER).map_err(refused)?;
            // Whoever we are outside, we are here, and so are our files.
            let write =
                |file: &str, text: String| std::fs::write(file, text).map_err(|e| format!("{file}: {e}"));
            write("/proc/self/setgroups", "deny".to_owned())?;
            write("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw()))?;
            write("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw()))?;
        }
        Err(error) => return Err(refused(error)),
    }
    let told = |error: Errno| {
        format!("this kernel does not let us set up a network of our own: {}", io::Error::from(error))
    };
    // What is mounted here is nobody else's business.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(told)?;
    let mut sets = capabilities(None).map_err(told)?;
    for capability in OF_A_MESH {
        sets.inheritable |= capability;
    }
    set_capabilities(None, sets).map_err(told)?;
    for capability in OF_A_MESH {
        configure_capability_in_ambient_set(capability, true).map_err(told)?;
    }
    Ok(())
}

/// Why there is no new world, and what to do.
fn refused(error: Errno) -> String {
    let error = io::Error::from(error);
    let hint = match std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        Ok(text) if text.trim() == "1" => {
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` allows it"
        }
        _ => {
            "`sudo sysctl user.max_user_namespaces=10000` (and, on old Debian, `kernel.unprivileged_userns_clone=1`) allows it"
        }
    };
    format!(
        "this kernel does not let ordinary users make namespaces ({error}); {hint}, `--capture proxy` does without"
    )
}

#[allow(deprecated)] // The one that is not is unsafe, for a flag that is not used here.
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    rustix::thread::unshare(flags)
}

/// Makes a network namespace for this thread. Meant for a thread that ends soon.
pub(crate) fn enter_new_network() -> io::Result<File> {
    unshare(UnshareFlags::NEWNET)?;
    File::open("/proc/thread-self/ns/net")
}

/// Enters the network namespace that `path` stands for.
pub(crate) fn enter_network(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Enters the world of process `pid`: its network, what is mounted for it, and its users if they are others.
pub(crate) fn enter_world_of(pid: i32) -> io::Result<()> {
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let descriptor = pidfd_open(process, PidfdFlags::empty())?;
    let users = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
    let mut world = ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::MOUNT;
    if users("self")? != users(&pid.to_string())? {
        world |= ThreadNameSpaceType::USER;
    }
    Ok(move_into_thread_name_spaces(descriptor.as_fd(), world)?)
}

/// Puts the files in `folder` in place of the system's: where names are asked for, and that they are asked for there.
pub(crate) fn replace_resolver(folder: &Path) -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for target in [RESOLVER, LOOKUPS] {
        let Some(name) = Path::new(target).file_name() else { continue };
        match mount_bind(folder.join(name), target) {
            // Without the file the system's defaults hold, which do.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gives up what only a mesh may; a sidecar keeps what it needs.
pub(crate) fn drop_privileges(is_sidecar: bool) -> io::Result<()> {
    clear_ambient_capability_set()?;
    let mut sets = capabilities(None)?;
    for capability in OF_A_MESH {
        let is_kept = is_sidecar && capability == OF_A_SIDECAR;
        if is_kept && sets.permitted.contains(capability) {
            sets.inheritable |= capability;
            set_capabilities(None, sets)?;
            configure_capability_in_ambient_set(capability, true)?;
        } else if !is_kept {
            // Root would get it back when it becomes another program.
            match remove_capability_from_bounding_set(capability) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
