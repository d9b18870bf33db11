//! Clients that check every byte of every answer, and WebSockets with repeated messages.

use super::{Outcome, Tally};
use crate::client::{self, Connection, Failure};
use crate::websocket::{Ended, WebSocket};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Requests after which a client takes a new connection.
const PER_CONNECTION: usize = 1000;
/// Pause between two messages on a WebSocket.
const PING_EVERY: Duration = Duration::from_millis(200);

/// A host and the Services that may answer for it.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) services: Vec<String>,
}

/// When endpoints were killed, and when that was withdrawn.
#[derive(Debug, Clone, Default)]
pub(super) struct Kills(Arc<Mutex<Vec<Kill>>>);

#[derive(Debug, Clone)]
struct Kill {
    service: String,
    at: Instant,
    withdrawn: Option<Instant>,
}

impl Kills {
    pub(super) fn killed(&self, service: &str) {
        self.0.lock().unwrap().push(Kill {
            service: service.to_owned(),
            at: Instant::now(),
            withdrawn: None,
        });
    }

    pub(super) fn withdrawn(&self, service: &str) {
        let mut kills = self.0.lock().unwrap();
        for kill in kills.iter_mut().filter(|kill| kill.service == service) {
            kill.withdrawn.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// A safe request is excused only when the kill fell within it. Another cannot be repeated when it went to the dead endpoint over
    /// a kept connection, so for it the time counts until the endpoint was withdrawn.
    fn excuse(&self, services: &[String], safe: bool, start: Instant, end: Instant) -> bool {
        let kills = self.0.lock().unwrap();
        kills.iter().any(|kill| {
            let last = if safe { kill.at } else { kill.withdrawn.unwrap_or(end) };
            services.contains(&kill.service) && kill.at <= end && last >= start
        })
    }
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Traffic {
    address: SocketAddr,
    hosts: Vec<Host>,
    kills: Kills,
    /// Requests that were sent.
    sent: AtomicUsize,
    /// So many are sent in any case.
    least: usize,
    /// No more than those.
    may_end: AtomicBool,
}

impl Traffic {
    /// So many requests to these hosts.
    pub(super) fn new(address: SocketAddr, hosts: Vec<Host>, kills: Kills, requests: usize) -> Self {
        Self {
            address,
            hosts,
            kills,
            sent: AtomicUsize::new(0),
            least: requests,
            may_end: AtomicBool::new(true),
        }
    }

    /// At least so many, and more until [`Self::may_end`] was said.
    pub(super) fn without_end(address: SocketAddr, hosts: Vec<Host>, least: usize) -> Self {
        Self {
            may_end: AtomicBool::new(false),
            ..Self::new(address, hosts, Kills::default(), least)
        }
    }

    /// From now on no more than the fewest are needed.
    pub(super) fn may_end(&self) {
        self.may_end.store(true, Ordering::Relaxed);
    }

    /// So many clients at once, until there are no requests left.
    pub(super) async fn run(self: Arc<Self>, clients: usize) -> Tally {
        let clients: Vec<_> = (0..clients).map(|_| tokio::spawn(Arc::clone(&self).client())).collect();
        let mut tally = Tally::default();
        for client in clients {
            tally.add(client.await.expect("a client does not panic"));
        }
        tally
    }

    /// Sends requests, one after another, until there are none left.
    async fn client(self: Arc<Self>) -> Tally {
        let (mut tally, mut connection) = (Tally::default(), None);
        while let Some(number) = self.ticket() {
            let outcome = self.request(number, &mut connection, &mut tally.resent).await;
            tally.count(outcome);
        }
        tally
    }

    fn ticket(&self) -> Option<usize> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        (number < self.least || !self.may_end.load(Ordering::Relaxed)).then_some(number)
    }

    async fn request(
        &self,
        number: usize,
        connection: &mut Option<Connection<TcpStream>>,
        resent: &mut usize,
    ) -> Outcome {
        let host = &self.hosts[number % self.hosts.len()];
        let safe = !number.is_multiple_of(5);
        let body = if safe { String::new() } else { format!("body-{number}") };
        let method = if safe { "GET" } else { "POST" };
        let length = if safe {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let text = format!(
            "{method} /{number} HTTP/1.1\r\nHost: {}\r\nX-Nonce: {number}\r\n{length}\r\n{body}",
            host.name
        );
        let start = Instant::now();
        let mut twice = false;
        let why = loop {
            if connection
                .as_ref()
                .is_none_or(|connection| connection.exchanges >= PER_CONNECTION)
            {
                *connection = match client::connect(self.address).await {
                    Ok(new) => Some(new),
                    Err(error) => break format!("connect: {error}"),
                };
            }
            let Some(open) = connection.as_mut() else {
                break "no connection".to_owned();
            };
            let reused = open.exchanges > 0;
            match open.exchange(text.as_bytes()).await {
                Ok(answer) => {
                    if !answer.keeps {
                        *connection = None;
                    }
                    let right = |service: &String| answer.body == format!("{service} {number} {body}").into_bytes();
                    if answer.status == 200 && host.services.iter().any(right) {
                        return Outcome::Right;
                    }
                    break format!("{} {:?}", answer.status, answer.text());
                }
                Err(failure) => {
                    *connection = None;
                    match failure {
                        Failure::Closed if safe && reused && !twice => {
                            twice = true;
                            *resent += 1;
                        }
                        Failure::Closed => break "closed without an answer".to_owned(),
                        Failure::Broken(text) => break text,
                    }
                }
            }
        };
        if self.kills.excuse(&host.services, safe, start, Instant::now()) {
            return Outcome::Killed;
        }
        Outcome::Lost(format!("{method} {} after {:?}: {why}", host.name, start.elapsed()))
    }
}

/// Opens a WebSocket and talks over it until told to stop; tells how it ended when it ended before.
pub(super) async fn websocket(
    address: SocketAddr,
    host: &str,
    opened: &AtomicUsize,
    stop: &mut watch::Receiver<bool>,
) -> Option<Ended> {
    let connection = match client::connect(address).await {
        Ok(connection) => connection,
        Err(error) => return Some(Ended::Cut(error.to_string())),
    };
    let mut socket = match WebSocket::open(connection, host, "/").await {
        Ok(socket) => socket,
        Err(why) => return Some(Ended::Wrong(format!("not opened: {why}"))),
    };
    opened.fetch_add(1, Ordering::Relaxed);
    for number in 0.. {
        if let Err(ended) = socket.ping(&format!("message {number}")).await {
            return Some(ended);
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return None,
            () = tokio::time::sleep(PING_EVERY) => {}
        }
    }
    None
}

/// The results of the WebSockets.
pub(super) async fn all_ended<T, I: IntoIterator<Item = T>>(websockets: Vec<JoinHandle<I>>) -> Vec<T> {
    let mut all = Vec::new();
    for socket in websockets {
        all.extend(socket.await.expect("a WebSocket does not panic"));
    }
    all
}
