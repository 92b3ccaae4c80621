//! blkdom, the image: joins the library to the runtime. Floor 3.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod domain;

use domain::Domain;
use runtime::{Environment, service};

runtime::entry!(main);

async fn main(environment: Environment) {
    service::run::<Domain>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), environment).await;
}
