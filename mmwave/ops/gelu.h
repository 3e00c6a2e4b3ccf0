// GELU to the precision of bfloat16.

#pragma once

#include "lanes.h"

namespace mmwave {

// x Phi(x), with Phi the normal distribution function, to 2e-5. Phi(x) - 1/2 is odd: x times a polynomial of x^2,
// the minimax polynomial for |x| below 4.5, constrained to 1/2 there, so that the result is 0 below -4.5. Its
// variable is scaled to [-1, 1], since otherwise large terms would cancel.
inline Lanes gelu(Lanes x) {
  const Lanes lowest = every(-4.5f), highest = every(1.41421356f);
  x = x < lowest ? lowest : x;
  Lanes t = x * 0.31426968f;
  t = t > highest ? highest : t;
  const Lanes v = t * t - 1.0f;
  Lanes sum = v * -0.00303573767f + 0.0134823006f;
  sum = sum * v - 0.0247470662f;
  sum = sum * v + 0.0343922041f;
  sum = sum * v - 0.0557607375f;
  sum = sum * v + 0.0900532678f;
  sum = sum * v - 0.12864095f;
  sum = sum * v + 0.174117118f;
  sum = sum * v - 0.245573297f;
  sum = sum * v + 0.499266297f;
  return x * (t * sum + 0.5f);
}

}  // namespace mmwave
