//! The harness: real PostgreSQL servers, real clients, the real agent.
