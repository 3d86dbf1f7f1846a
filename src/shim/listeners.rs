//! Which TCP sockets listen on a run's port, and who has them. A socket is closed with its last descriptor, so one
//! outlives its engine only in the hands of a process that the engine gave it to.
use crate::shortage;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Inodes of the sockets that listen on `port` in our network namespace, on any address. An error when that could not be
/// looked at, for want of descriptors or memory.
pub(super) fn on_port(port: u16) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let Some(file) = shortage::seen(File::open(table))? else { continue };
        let mut lines = BufReader::new(file);
        let mut line = String::new();
        while shortage::seen(lines.read_line(&mut line))?.is_some_and(|len| len > 0) {
            inodes.extend(listener(&line, port));
            line.clear();
        }
    }
    Ok(inodes)
}

/// The inode, when this line of /proc/net/tcp is a socket that listens on `port`.
fn listener(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let ours = u16::from_str_radix(local_port, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
    if ours { fields.get(9)?.parse().ok() } else { None }
}

/// Those of `inodes` that the process has open. An error as for [`on_port`].
pub(super) fn held_by(pid: u32, inodes: &[u64]) -> io::Result<Vec<u64>> {
    let mut held = Vec::new();
    for entry in shortage::seen(std::fs::read_dir(format!("/proc/{pid}/fd")))?.into_iter().flatten() {
        let link = shortage::seen(entry.and_then(|entry| std::fs::read_link(entry.path())))?;
        held.extend(link.and_then(|link| socket(link.to_str()?)).filter(|inode| inodes.contains(inode)));
    }
    Ok(held)
}

/// The inode that the link of a socket's descriptor names.
fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listening_socket_on_the_port_counts() {
        let line = |local: &str, state: &str| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0"
            )
        };
        assert_eq!(listener(&line("0100007F:4E20", "0A"), 20_000), Some(4242));
        assert_eq!(listener(&line("00000000000000000000000001000000:4E20", "0A"), 20_000), Some(4242));
        assert_eq!(listener(&line("0100007F:4E21", "0A"), 20_000), None);
        assert_eq!(listener(&line("0100007F:4E20", "01"), 20_000), None);
        assert_eq!(listener("  sl  local_address rem_address   st", 20_000), None);
        assert_eq!(listener("", 20_000), None);
    }

    #[test]
    fn a_listener_of_ours_is_found_on_its_port_and_in_our_hands() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inodes = on_port(socket.local_addr().unwrap().port()).unwrap();
        assert_eq!(inodes.len(), 1);
        assert_eq!(held_by(std::process::id(), &inodes).unwrap(), inodes);
        assert!(held_by(std::process::id(), &[inodes[0] + 1_000_000]).unwrap().is_empty());
    }
}
