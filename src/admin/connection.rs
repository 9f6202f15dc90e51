//! Connections: taken in up to bounds, with TLS where it is set up, one request each.
//!
//! The handshake counts within the bounds and the time-out of its connection, like all that a client can delay.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::rates;

/// The most bytes of a request's head.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most headers of a request.
pub const MAX_HEADERS: usize = 64;
/// The most connections at once; more wait in the system's queue.
pub const MAX_CONNECTIONS: usize = 64;
/// The most connections at once of one address other than this machine's, so that one alone cannot keep
/// probes out; more are closed.
pub const MAX_CONNECTIONS_OF_PEER: usize = 16;
/// How long to wait after a connection could not be accepted, which happens when the process has
/// no file descriptor left: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct Peer {
    /// The address.
    pub address: SocketAddr,
    /// The certificate that was shown, checked.
    pub certificate: Option<CertificateDer<'static>>,
    /// When the connection ends, whatever is under way.
    pub deadline: Arc<watch::Sender<Instant>>,
}

/// A place among the connections.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    peers: Arc<Peers>,
    peer: IpAddr,
}

/// How many connections each address has.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// Takes connections in.
pub struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
    peers: Arc<Peers>,
}

impl Connections {
    /// Of this socket.
    pub fn of(listener: TcpListener) -> Connections {
        Connections { listener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), peers: Arc::default() }
    }

    /// The next connection that has a place.
    pub async fn next(&self) -> (TcpStream, SocketAddr, Place) {
        let permit = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let peer = rates::place(address.ip());
                    if self.peers.enter(peer) {
                        let place = Place { _permit: permit, peers: self.peers.clone(), peer };
                        return (stream, address, place);
                    }
                    tracing::debug!(%peer, "too many connections of an address to the admin endpoint");
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the admin endpoint");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Peers {
    fn enter(&self, peer: IpAddr) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        let room = peer.is_loopback() || *count < MAX_CONNECTIONS_OF_PEER;
        *count += usize::from(room);
        room
    }

    fn leave(&self, peer: IpAddr) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&peer);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peers.leave(self.peer);
    }
}

/// Answers the one request of a connection, by `deadline` unless the request is granted more.
pub async fn answer(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    routes: Router,
    deadline: Instant,
) {
    let (granted, mut until) = watch::channel(deadline);
    let granted = Arc::new(granted);
    let answering = async {
        let peer = |certificate| Peer { address, certificate, deadline: granted.clone() };
        let Some(acceptor) = acceptor else { return speak(stream, peer(None), routes).await };
        match acceptor.accept(stream).await {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let shown =
                    certificates.and_then(|shown| shown.first()).map(|first| first.clone().into_owned());
                speak(stream, peer(shown), routes).await;
            }
            Err(error) => tracing::debug!(%error, %address, "no TLS with a client of the admin endpoint"),
        }
    };
    tokio::pin!(answering);
    loop {
        let end = *until.borrow_and_update();
        tokio::select! {
            () = &mut answering => return,
            _ = until.changed() => {}
            () = tokio::time::sleep_until(end) => {
                return tracing::debug!(%address, "a request to the admin endpoint took too long");
            }
        }
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, routes: Router) {
    let address = peer.address;
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, %address, "a request to the admin endpoint failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_alone_cannot_take_all_places() {
        let peers = Peers::default();
        let (one, other, here) = ("10.0.0.1", "10.0.0.2", "127.0.0.1");
        let enter = |peer: &str| peers.enter(peer.parse().expect("an address"));
        assert!((0..MAX_CONNECTIONS_OF_PEER).all(|_| enter(one)));
        assert!(!enter(one) && enter(other));
        peers.leave(one.parse().expect("an address"));
        assert!(enter(one) && !enter(one));
        assert!((0..MAX_CONNECTIONS).all(|_| enter(here)));
        for peer in [one, other, here] {
            let count = peers.0.lock().expect("unpoisoned")[&peer.parse::<IpAddr>().expect("an address")];
            (0..count).for_each(|_| peers.leave(peer.parse().expect("an address")));
        }
        assert!(peers.0.lock().expect("unpoisoned").is_empty(), "nothing is kept of who has left");
    }
}
