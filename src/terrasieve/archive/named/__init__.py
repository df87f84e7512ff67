"""What somebody has named, and what else is said of it; guesses and refusals where that is too little."""
