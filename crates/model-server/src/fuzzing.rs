//! What fuzz targets call and programs don't. Only there with `--cfg fuzzing`, which `cargo fuzz` sets.

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::service::Routes;

use crate::config;
use crate::flags::Flags;
use crate::lane::Lane;
use crate::manager::{self, WaitFor};
use crate::proto::serving::ModelServerConfig;
use crate::serve;

/// What answers requests, without connections.
pub struct Services {
    runtime: Runtime,
    rest: TowerToHyperService<Router>,
    grpc: TowerToHyperService<Routes>,
}

impl Services {
    /// Those of a server with these flags, whose models serve. They end with the process.
    pub fn new(flags: &Flags) -> Result<Self> {
        const THREADS: usize = 2;
        const MOST_WAITING: usize = 8;
        config::check(flags)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("services")
            .enable_all()
            .build()?;
        let core = serve::core(flags, Arc::default(), runtime.handle())?;
        let lane = |name| Lane::new(name, THREADS, MOST_WAITING);
        let rest = serve::rest(flags, &core, lane("REST"))?;
        let grpc = runtime.block_on(async {
            core.manager.apply(&config::models(flags)?, WaitFor::All).await?;
            anyhow::Ok(serve::services(flags, &core, lane("GRPC"))?.1)
        })?;
        let (rest, grpc) = (TowerToHyperService::new(rest), TowerToHyperService::new(grpc));
        Ok(Self { runtime, rest, grpc })
    }

    /// Answers a request of REST.
    pub fn rest(&self, request: Request<Vec<u8>>) -> Response<Bytes> {
        self.runtime.block_on(async {
            let answer = self.rest.call(request.map(Body::from)).await;
            let (head, body) = answer.expect("no way to fail").into_parts();
            let body = to_bytes(body, usize::MAX).await.expect("an answer is whole");
            Response::from_parts(head, body)
        })
    }

    /// Answers a request of gRPC: a message, which may be compressed, for the procedure with this path.
    pub fn grpc(
        &self,
        path: &str,
        encoding: Option<&str>,
        message: &[u8],
    ) -> Result<Bytes, Status> {
        let size = (message.len() as u32).to_be_bytes();
        let framed = [&[u8::from(encoding.is_some())][..], &size, message].concat();
        let request = Request::post(path).header("content-type", "application/grpc");
        let request = match encoding {
            None => request,
            Some(encoding) => request.header("grpc-encoding", encoding),
        };
        let request = request.body(tonic::body::Body::new(Full::from(framed)));
        self.runtime.block_on(async {
            let answer = self.grpc.call(request.expect("a valid request")).await;
            let (head, body) = answer.expect("no way to fail").into_parts();
            let body = body.collect().await?;
            let status = Status::from_header_map(&head.headers)
                .or_else(|| Status::from_header_map(body.trailers()?))
                .expect("each answer has a status");
            match status.code() {
                tonic::Code::Ok => Ok(body.to_bytes()),
                _ => Err(status),
            }
        })
    }
}

/// Whether the models of a configuration can be served, as far as can be said without a look at their folders.
pub fn check(config: &ModelServerConfig) -> session_group::Result<()> {
    manager::checked(config).map(drop)
}
