//! The whole product in a real cluster: helm, helmfile, our image, Traefik, a chain, and buyers that we did
//! not write.

mod moved;
mod sell;
mod shop;
