//! What names metrics outside of the program (help page, alert rules, dashboard) against the catalogue in it, and real
//! scrapes of a real agent.
mod page;
mod scrape;
