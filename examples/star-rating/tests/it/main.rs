//! The example as a whole: a tiny encoder from file to answer, the server over real sockets, the
//! command line's complaints, and the real models.

#[cfg(test)]
mod client;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod encoder;
#[cfg(test)]
mod real;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tiny;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod training;
