//! An object store in this process: the crate `s3s-fs`, which keeps objects in a directory, and checks signatures as Amazon does.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::thread;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::runtime;
use tokio::sync::oneshot;

use super::message::{Answer, Request};
use super::server::FaultyServer;
use crate::{BucketKind, BucketOptions, Secret};

/// The one bucket that it has.
const BUCKET: &str = "cache";
const ACCESS_KEY_ID: &str = "id-of-key";
const SECRET_ACCESS_KEY: &str = "the-key-itself";

/// An S3 server in this process, with one bucket. Stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl S3Server {
    /// Starts one on a free port, which keeps what it is given in a directory.
    ///
    /// # Errors
    /// When the directory or the loopback interface cannot be used.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Self::start_at("127.0.0.1:0", directory)
    }

    /// Starts one at an address.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_at(address: &str, directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory.join(BUCKET))?;
        let files = FileSystem::new(directory).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let service = service.build();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = serve(listener, service) => result.unwrap_or_default(),
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self { address, _stop: stop })
    }

    /// `127.0.0.1:<port>`.
    pub fn name(&self) -> String {
        self.address.to_string()
    }

    /// What a client has to know of it, under the name `endpoint`: its own, or that of a wire before it.
    pub fn options(&self, endpoint: &str, prefix: &str) -> BucketOptions {
        let kind = BucketKind::S3 {
            region: Some("us-east-1".to_owned()),
            endpoint: Some(format!("http://{endpoint}")),
            path_style: true,
            access_key_id: Some(ACCESS_KEY_ID.to_owned()),
            secret_access_key: Some(Secret::new(SECRET_ACCESS_KEY)),
            session_token: None,
        };
        BucketOptions { bucket: BUCKET.to_owned(), prefix: prefix.to_owned(), kind }
    }

    /// The same as a word of the command line.
    pub fn cache(&self, endpoint: &str, prefix: &str) -> String {
        format!(
            "type=s3,bucket={BUCKET},region=us-east-1,endpoint_url=http://{endpoint},use_path_style=true,prefix={prefix},\
             access_key_id={ACCESS_KEY_ID},secret_access_key={SECRET_ACCESS_KEY}"
        )
    }
}

async fn serve(listener: TcpListener, service: S3Service) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let http = Builder::new(TokioExecutor::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
        // A client that goes away is part of the tests.
        tokio::spawn(async move { connection.await.ok() });
    }
}

/// A server before an S3 server that passes on what it is asked and what is answered, and plays faults. Stops when dropped.
#[derive(Debug)]
pub struct FaultyS3(FaultyServer);

impl Deref for FaultyS3 {
    type Target = FaultyServer;

    fn deref(&self) -> &FaultyServer {
        &self.0
    }
}

impl FaultyS3 {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When there is no loopback interface to listen on.
    pub fn before(server: &S3Server) -> io::Result<Self> {
        let address = server.address;
        let pass_on = move |request: &Request| {
            let mut stream = TcpStream::connect(address)?;
            request.send(&mut stream)?;
            Answer::read(&mut BufReader::new(stream), &request.method)
        };
        let pass_on = move |request: &Request, _: &str| pass_on(request).unwrap_or_else(|_| Answer::new(502));
        FaultyServer::start(pass_on).map(Self)
    }
}
