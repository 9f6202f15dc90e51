//! Connections: taken in up to bounds, with TLS where it is set up, one request each.
//!
//! The handshake counts within the bounds and the time-out of its connection, like all that a client can delay. Whoever
//! has not sent a request yet holds a place only until somebody else needs it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::rates;

/// The most bytes of a request's head.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most headers of a request.
pub const MAX_HEADERS: usize = 64;
/// The most connections at once; where all are answered, more wait in the system's queue.
pub const MAX_CONNECTIONS: usize = 64;
/// The most connections at once of one address other than this machine's, so that one alone cannot keep
/// probes out; where all are answered, more are closed.
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
    places: Arc<Places>,
    number: u64,
    given_up: Arc<Notify>,
}

/// The places that are taken.
#[derive(Default)]
struct Places {
    taken: Mutex<Taken>,
    /// Told when there may be a place again.
    left: Notify,
}

#[derive(Default)]
struct Taken {
    /// By number, and so by age.
    of: BTreeMap<u64, Connection>,
    next: u64,
}

struct Connection {
    peer: IpAddr,
    /// No request has come yet.
    waits: bool,
    given_up: Arc<Notify>,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
enum NoPlace {
    /// This address has its share.
    OfPeer,
    /// Nobody has any.
    AtAll,
}

/// Takes connections in.
pub struct Connections {
    listener: TcpListener,
    places: Arc<Places>,
}

impl Connections {
    /// Of this socket.
    pub fn of(listener: TcpListener) -> Connections {
        Connections { listener, places: Arc::default() }
    }

    /// The next connection that has a place.
    pub async fn next(&self) -> (TcpStream, SocketAddr, Place) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let peer = rates::place(address.ip());
                    if let Some(place) = self.place(peer).await {
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

    /// A place as soon as there is one; `None`: the address has its share.
    async fn place(&self, peer: IpAddr) -> Option<Place> {
        loop {
            let left = self.places.left.notified();
            match Places::enter(&self.places, peer) {
                Ok(place) => return Some(place),
                Err(NoPlace::OfPeer) => return None,
                Err(NoPlace::AtAll) => left.await,
            }
        }
    }
}

impl Places {
    /// Takes a place; if none is left, that of somebody who has not sent a request yet.
    fn enter(places: &Arc<Places>, peer: IpAddr) -> Result<Place, NoPlace> {
        let mut taken = places.taken();
        if !peer.is_loopback() && taken.count(peer) >= MAX_CONNECTIONS_OF_PEER {
            let oldest = taken.waiting().find(|(_, connection)| connection.peer == peer);
            let oldest = oldest.map(|(number, _)| number);
            taken.give_up(oldest.ok_or(NoPlace::OfPeer)?);
        } else if taken.of.len() >= MAX_CONNECTIONS {
            // Whoever has the most: those who are many must not push out a probe, which is alone.
            let counted = taken.waiting().map(|(number, of)| (taken.count(of.peer), number));
            let most = counted.max_by_key(|(count, number)| (*count, u64::MAX - number));
            taken.give_up(most.ok_or(NoPlace::AtAll)?.1);
        }
        let (number, given_up) = (taken.next, Arc::<Notify>::default());
        taken.next += 1;
        taken.of.insert(number, Connection { peer, waits: true, given_up: given_up.clone() });
        Ok(Place { places: places.clone(), number, given_up })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn count(&self, peer: IpAddr) -> usize {
        self.of.values().filter(|connection| connection.peer == peer).count()
    }

    /// The oldest first.
    fn waiting(&self) -> impl Iterator<Item = (u64, &Connection)> {
        self.of.iter().filter(|(_, connection)| connection.waits).map(|(number, of)| (*number, of))
    }

    fn give_up(&mut self, number: u64) {
        if let Some(connection) = self.of.remove(&number) {
            connection.given_up.notify_one();
        }
    }
}

impl Place {
    /// A request has come: the place is kept to its end.
    fn keep(&self) {
        if let Some(connection) = self.places.taken().of.get_mut(&self.number) {
            connection.waits = false;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().of.remove(&self.number);
        self.places.left.notify_one();
    }
}

/// How long a connection may last.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Until the head of its request is there, the TLS handshake included.
    pub head: Duration,
    /// Until its last byte, unless the request is granted more.
    pub request: Duration,
}

/// Answers the one request of a connection, within these times, as long as it has its place.
pub async fn answer(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    routes: Router,
    times: Times,
    place: Place,
) {
    let began = Instant::now();
    let (granted, mut until) = watch::channel(began + times.head);
    let granted = Arc::new(granted);
    let given_up = place.given_up.clone();
    let come = {
        let granted = granted.clone();
        move || {
            place.keep();
            granted.send_replace(began + times.request);
        }
    };
    let answering = async {
        let peer = |certificate| Peer { address, certificate, deadline: granted.clone() };
        let Some(acceptor) = acceptor else { return speak(stream, peer(None), routes, come).await };
        match acceptor.accept(stream).await {
            Ok(stream) => {
                let certificates = stream.get_ref().1.peer_certificates();
                let shown =
                    certificates.and_then(|shown| shown.first()).map(|first| first.clone().into_owned());
                speak(stream, peer(shown), routes, come).await;
            }
            Err(error) => tracing::debug!(%error, %address, "no TLS with a client of the admin endpoint"),
        }
    };
    tokio::pin!(answering);
    loop {
        let end = *until.borrow_and_update();
        tokio::select! {
            // First: a request whose head comes when its place is gone must not begin.
            biased;
            () = given_up.notified() => {
                return tracing::debug!(%address, "a connection without a request made room for another");
            }
            () = &mut answering => return,
            _ = until.changed() => {}
            () = tokio::time::sleep_until(end) => {
                return tracing::debug!(%address, "a request to the admin endpoint took too long");
            }
        }
    }
}

/// `come` is told when the head of the request is there.
async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, routes: Router, come: impl Fn()) {
    let address = peer.address;
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        come();
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

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_alone_cannot_take_all_places() {
        let places = Arc::<Places>::default();
        let (one, other, here) = (address("10.0.0.1"), address("10.0.0.2"), address("127.0.0.1"));
        let enter = |peer| {
            let place = Places::enter(&places, peer)?;
            place.keep();
            Ok(place)
        };
        let mut held: Vec<_> = (0..MAX_CONNECTIONS_OF_PEER).map(|_| enter(one).expect("room")).collect();
        assert_eq!(enter(one).err(), Some(NoPlace::OfPeer));
        held.push(enter(other).expect("room for another address"));
        held.swap_remove(0);
        held.push(enter(one).expect("a place was left"));
        assert_eq!(enter(one).err(), Some(NoPlace::OfPeer));
        while held.len() < MAX_CONNECTIONS {
            held.push(enter(here).expect("this machine has no share"));
        }
        assert_eq!(enter(here).err(), Some(NoPlace::AtAll), "all are being answered");
        drop(held);
        assert!(places.taken().of.is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn who_has_sent_no_request_makes_room_and_those_who_are_many_first() {
        let places = Arc::<Places>::default();
        let enter = |peer: &str| Places::enter(&places, address(peer)).expect("somebody makes room");
        let is_there = |place: &Place| places.taken().of.contains_key(&place.number);
        let (answered, probe) = (enter("10.0.0.9"), enter("10.0.0.8"));
        answered.keep();
        let addresses: Vec<String> = (1..=4).map(|n| format!("10.0.1.{n}")).collect();
        // As many as four addresses can have, each connection held without a byte, and more than that.
        let silent: Vec<Place> =
            (0..3 * MAX_CONNECTIONS).map(|n| enter(&addresses[n % addresses.len()])).collect();
        assert!(is_there(&answered) && is_there(&probe), "neither is one of many");
        assert_eq!(silent.iter().filter(|place| is_there(place)).count(), MAX_CONNECTIONS - 2);
        assert!(is_there(&silent[silent.len() - 1]) && !is_there(&silent[0]), "the oldest goes");
    }

    #[test]
    fn an_address_that_has_its_share_makes_room_for_itself() {
        let places = Arc::<Places>::default();
        let enter = || Places::enter(&places, address("10.0.0.1")).expect("its oldest makes room");
        let same: Vec<Place> = (0..=MAX_CONNECTIONS_OF_PEER).map(|_| enter()).collect();
        let there: Vec<u64> = places.taken().of.keys().copied().collect();
        assert_eq!(there, same[1..].iter().map(|place| place.number).collect::<Vec<_>>());
    }
}
