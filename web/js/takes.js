// The logic of takes side by side: their order and their names. It knows no page.

// Return the numbers from 0 to count − 1 in a random order. random() is from 0 to below 1.
export function shuffled(count, random = Math.random) {
    const order = [...Array(count).keys()];
    for (let i = count - 1; i > 0; i--) {
        const j = Math.floor(random() * (i + 1));
        [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
}

// Return the name of the take at a place: a letter if it is hidden, else its number.
export function nameOf(place, take, hidden) {
    return hidden ? String.fromCharCode(65 + place) : `${take + 1}`;
}

export function factorOf(decibels) {
    return 10 ** (decibels / 20);
}

// Return the seconds at which sound is, that started at an offset and ends with the longest take.
export function positionOf(offset, elapsed, seconds) {
    return Math.min(seconds, Math.max(0, offset + elapsed));
}
