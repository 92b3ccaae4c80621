//! netdom, the image: joins the library to the runtime. Floor 3.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod domain;

use domain::Domain;
use runtime::{Environment, service};

#[cfg(not(feature = "faults"))]
runtime::entry!(main);

// The image for tests is one of the next version: it adds to the state, and images of this one pass over that.
#[cfg(feature = "faults")]
runtime::entry!(main, writes: 2, reads: 1, read_by: 1);

async fn main(environment: Environment) {
    service::run::<Domain>(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), environment).await;
}
