//! Sockets: a listener whose connections a request can reset, and a server that can stop and resume
//! on its port. Proxies between a client and a simulator use them too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::lock;

/// The handle of one connection, which its requests receive through axum's `ConnectInfo`.
#[derive(Clone, Debug, Default)]
pub struct Connection(Arc<ConnectionState>);

#[derive(Debug, Default)]
struct ConnectionState {
    reset: AtomicBool,
    // one waker is enough: a single task drives an HTTP/1 connection
    waker: Mutex<Option<Waker>>,
}

impl Connection {
    /// Breaks the connection with a TCP reset; no further bytes are sent.
    pub fn reset(&self) {
        self.0.reset.store(true, Ordering::SeqCst);
        if let Some(waker) = lock(&self.0.waker).take() {
            waker.wake();
        }
    }
}

/// A stream that fails on its next use after `Connection::reset`.
pub(crate) struct Stream {
    tcp: TcpStream,
    connection: Connection,
}

impl Stream {
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        // the waker first: otherwise a reset between the two lines would go unnoticed
        *lock(&self.connection.0.waker) = Some(context.waker().clone());
        if self.connection.0.reset.load(Ordering::SeqCst) {
            // closing without lingering makes the kernel send RST in place of FIN
            self.tcp.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// All live connections of a server. The references are weak: a connection lives as long as its
/// stream.
type Connections = Arc<Mutex<Vec<Weak<ConnectionState>>>>;

pub(crate) struct ResettableListener {
    tcp: TcpListener,
    connections: Connections,
}

impl Listener for ResettableListener {
    type Io = Stream;
    type Addr = Connection;

    async fn accept(&mut self) -> (Stream, Connection) {
        loop {
            // accept fails for temporary reasons (too many open files): retry shortly
            let Ok((tcp, _)) = self.tcp.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // small responses must not wait for Nagle; a failure only makes them slower
            let _ = tcp.set_nodelay(true);
            let connection = Connection::default();
            let mut connections = lock(&self.connections);
            connections.retain(|other| other.strong_count() > 0);
            connections.push(Arc::downgrade(&connection.0));
            drop(connections);
            return (
                Stream {
                    tcp,
                    connection: connection.clone(),
                },
                connection,
            );
        }
    }

    fn local_addr(&self) -> io::Result<Connection> {
        Ok(Connection::default())
    }
}

impl Connected<IncomingStream<'_, ResettableListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, ResettableListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listening port of 127.0.0.1.
#[derive(Debug)]
pub struct Bound {
    tcp: TcpListener,
    address: SocketAddr,
    /// Bound to the same port and never listening: it reserves the port while the server accepts no
    /// connections.
    reserved: TcpSocket,
}

impl Bound {
    /// Listens on a port; 0 lets the system choose.
    ///
    /// # Errors
    /// The port is in use.
    pub async fn to(port: u16) -> io::Result<Self> {
        let reserved = TcpSocket::new_v4()?;
        reserved.set_reuseaddr(true)?;
        reserved.bind((Ipv4Addr::LOCALHOST, port).into())?;
        let address = reserved.local_addr()?;
        let tcp = TcpListener::bind(address).await?;
        Ok(Self {
            tcp,
            address,
            reserved,
        })
    }

    /// Returns the address: `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        url(self.address)
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// An HTTP server on a port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    router: Router,
    connections: Connections,
    accept_task: Mutex<Option<JoinHandle<()>>>,
    _reserved: TcpSocket,
}

impl Server {
    /// Serves these routes.
    pub fn start(bound: Bound, router: Router) -> Self {
        let Bound {
            tcp,
            address,
            reserved,
        } = bound;
        let server = Self {
            address,
            router,
            connections: Connections::default(),
            accept_task: Mutex::new(None),
            _reserved: reserved,
        };
        server.accept_on(tcp);
        server
    }

    /// Returns the address: `http://127.0.0.1:1234`.
    pub fn url(&self) -> String {
        url(self.address)
    }

    /// Closes the port and resets every connection: clients get "connection refused".
    pub async fn stop(&self) {
        let accept_task = lock(&self.accept_task).take();
        if let Some(task) = accept_task {
            task.abort();
            // dropping the task closes the port
            let _ = task.await;
        }
        self.reset_connections();
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// The port is in use.
    pub async fn resume(&self) -> io::Result<()> {
        if lock(&self.accept_task).is_none() {
            let listener = TcpListener::bind(self.address).await?;
            self.accept_on(listener);
        }
        Ok(())
    }

    fn accept_on(&self, tcp: TcpListener) {
        let listener = ResettableListener {
            tcp,
            connections: Arc::clone(&self.connections),
        };
        let service = self
            .router
            .clone()
            .into_make_service_with_connect_info::<Connection>();
        let task = tokio::spawn(async move {
            // `serve` with this listener ends only when its task is aborted
            let _ = axum::serve(listener, service).await;
        });
        *lock(&self.accept_task) = Some(task);
    }

    fn reset_connections(&self) {
        for connection in lock(&self.connections)
            .drain(..)
            .filter_map(|weak| weak.upgrade())
        {
            Connection(connection).reset();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.accept_task).take() {
            task.abort();
        }
        self.reset_connections();
    }
}
