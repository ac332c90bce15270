//! The whole product in a real cluster: helm, helmfile, our image, Traefik, a chain, and buyers that we did
//! not write.

mod image;
mod ingress;
mod local;
mod moved;
mod plain;
mod sell;
mod shop;
