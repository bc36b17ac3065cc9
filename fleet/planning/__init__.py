"""What would happen if: replays of a pool's own history, growth, and when a batch would be done. Rests on `fleet.simulation`; decides nothing."""
