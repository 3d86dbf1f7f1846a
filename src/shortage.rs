//! PURE. Whose fault an error of the operating system is: this host's, which has no more of something that a call of our
//! own asked for, or that of whatever was called.
//!
//! A shortage says nothing about an engine. What met it is tried again later, and whoever is told of it is told which limit
//! that was. What an engine's own calls meet is in its log, and is for `kinds`.
use crate::policy::Cause;
use std::io::{self, ErrorKind};

// The same numbers on every architecture that Linux runs on; io::ErrorKind has no name for these.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// What this host has no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shortage {
    /// This process may open no more.
    Descriptors,
    /// Nobody on this host may open more.
    HostDescriptors,
    Memory,
    /// Processes or threads.
    Processes,
    DiskSpace,
    DiskQuota,
    /// Local ports for connections to one place.
    Ports,
}

/// What `why` is a shortage of; `None` where it says something about what was called.
pub fn of(why: &io::Error) -> Option<Shortage> {
    match (why.raw_os_error(), why.kind()) {
        (Some(EMFILE), _) => Some(Shortage::Descriptors),
        (Some(ENFILE), _) => Some(Shortage::HostDescriptors),
        (Some(ENOBUFS), _) | (_, ErrorKind::OutOfMemory) => Some(Shortage::Memory),
        (_, ErrorKind::StorageFull) => Some(Shortage::DiskSpace),
        (_, ErrorKind::QuotaExceeded) => Some(Shortage::DiskQuota),
        _ => None,
    }
}

/// The same of a connect(2). With IPv6 turned off there is no address to connect to an IPv6 one from, however many ports
/// are free: then that one is only out of reach.
pub fn of_a_connect(why: &io::Error, is_ipv4: bool) -> Option<Shortage> {
    of(why).or_else(|| (is_ipv4 && lacks_a_source(why)).then_some(Shortage::Ports))
}

/// There is no local port, or no local address, to connect from.
pub fn lacks_a_source(why: &io::Error) -> bool {
    why.kind() == ErrorKind::AddrNotAvailable
}

/// What a look found, `None` where it is not there or not for us to see. An error where this host lacks what the look takes:
/// then nobody knows what is there.
pub fn seen<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(why) if of(&why).is_some() => Err(why),
        Err(_) => Ok(None),
    }
}

/// The same of a call that makes a process or a thread: only there EAGAIN is a limit, and not a wish for patience.
pub fn of_a_start(why: &io::Error) -> Option<Shortage> {
    of(why).or_else(|| (why.kind() == ErrorKind::WouldBlock).then_some(Shortage::Processes))
}

impl Shortage {
    /// For people: what there is none of, and which limit that is. `descriptors` is this process's limit of them.
    pub fn words(self, descriptors: u64) -> String {
        match self {
            Self::Descriptors => format!(
                "this host has no free file descriptor for mainstay: its limit is {descriptors} \
                 (LimitNOFILE= of the unit, `ulimit -n`)"
            ),
            Self::HostDescriptors => "this host has no free file descriptor (sysctl fs.file-max)".to_owned(),
            Self::Memory => {
                "this host has no free memory for mainstay (MemoryMax= of the unit, `free -m`)".to_owned()
            }
            Self::Processes => "this host allows mainstay no further process or thread (TasksMax= and \
                                LimitNPROC= of the unit, `ulimit -u`, sysctl kernel.pid_max)"
                .to_owned(),
            Self::DiskSpace => {
                "the file system has no free space or no free inode (`df -h`, `df -i`)".to_owned()
            }
            Self::DiskQuota => "the disk quota of mainstay's user is used up (`quota`)".to_owned(),
            Self::Ports => "this host has no free local port or address to connect from \
                            (sysctl net.ipv4.ip_local_port_range)"
                .to_owned(),
        }
    }

    /// The contract's name for it, as far as there is one.
    pub fn cause(self) -> Cause {
        match self {
            Self::Descriptors | Self::HostDescriptors | Self::DiskSpace | Self::DiskQuota => Cause::DiskFull,
            Self::Memory => Cause::HostOom,
            Self::Processes | Self::Ports => Cause::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    #[test]
    fn whose_fault_an_error_is() {
        let ours = [
            (Errno::EMFILE, Shortage::Descriptors),
            (Errno::ENFILE, Shortage::HostDescriptors),
            (Errno::ENOMEM, Shortage::Memory),
            (Errno::ENOBUFS, Shortage::Memory),
            (Errno::ENOSPC, Shortage::DiskSpace),
            (Errno::EDQUOT, Shortage::DiskQuota),
        ];
        for (errno, shortage) in ours {
            let why = io::Error::from(errno);
            assert_eq!((of(&why), of_a_start(&why)), (Some(shortage), Some(shortage)), "{errno}");
        }
        let theirs = [
            Errno::ECONNREFUSED,
            Errno::ECONNRESET,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
            Errno::EADDRINUSE,
            Errno::EADDRNOTAVAIL,
            Errno::ENOENT,
            Errno::EACCES,
            Errno::EPERM,
            Errno::EROFS,
            Errno::ETXTBSY,
        ];
        for errno in theirs {
            let why = io::Error::from(errno);
            assert_eq!((of(&why), of_a_start(&why)), (None, None), "{errno}");
        }
        assert_eq!(of(&io::Error::other("no number")), None);
    }

    #[test]
    fn only_an_address_of_ipv4_is_always_in_reach_of_a_free_port() {
        let (nowhere, full) = (io::Error::from(Errno::EADDRNOTAVAIL), io::Error::from(Errno::EMFILE));
        assert_eq!(of_a_connect(&nowhere, true), Some(Shortage::Ports));
        assert_eq!(of_a_connect(&nowhere, false), None);
        assert_eq!(
            [true, false].map(|is_ipv4| of_a_connect(&full, is_ipv4)),
            [Some(Shortage::Descriptors); 2]
        );
        assert_eq!(of_a_connect(&io::Error::from(Errno::ECONNREFUSED), true), None);
    }

    #[test]
    fn only_a_start_that_is_to_be_tried_again_met_a_limit() {
        let again = io::Error::from(Errno::EAGAIN);
        assert_eq!((of(&again), of_a_start(&again)), (None, Some(Shortage::Processes)));
    }

    #[test]
    fn the_words_name_the_limit() {
        let told = Shortage::Descriptors.words(1024);
        assert!(told.contains("its limit is 1024 (LimitNOFILE="), "{told}");
        assert!(Shortage::Processes.words(1024).contains("TasksMax="));
    }
}
