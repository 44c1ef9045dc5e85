//! What every server of datagrams promises, over IP or to a path.

use crate::{Kept, Subject};

promises! {
    anybody: [
        each_value_of_a_byte_comes_back,
        each_of_a_hundred_peers_gets_its_own,
        a_peer_that_has_gone_harms_nobody,
        #[cfg(target_os = "linux")] peers_that_have_gone_leave_nothing_behind,
    ],
    ours: [],
}

pub fn each_value_of_a_byte_comes_back(subject: &Subject) -> Kept {
    let bytes: Vec<u8> = (0..=255).collect();
    subject.start()?.exchange(&bytes)
}

/// All have sent before the first receives.
pub fn each_of_a_hundred_peers_gets_its_own(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let peers = (0..100).map(|_| server.peer());
    let peers = peers.collect::<Result<Vec<_>, _>>()?;
    // A queue of Unix datagrams takes about ten.
    for peers in peers.chunks(10) {
        for (number, peer) in peers.iter().enumerate() {
            peer.send(&[number as u8])?;
        }
        for (number, peer) in peers.iter().enumerate() {
            ensure_eq!(peer.receive()?, [number as u8]);
        }
    }
    Ok(())
}

pub fn a_peer_that_has_gone_harms_nobody(subject: &Subject) -> Kept {
    let server = subject.start()?;
    let good = server.peer()?;
    for _ in 0..20 {
        server.peer()?.send(b"and gone")?;
        good.send(b"undisturbed")?;
        ensure_eq!(good.receive()?, b"undisturbed");
    }
    Ok(())
}

#[cfg(target_os = "linux")]
pub fn peers_that_have_gone_leave_nothing_behind(subject: &Subject) -> Kept {
    subject.start()?.forgets()
}
