// What every surface material receives: world position and normal, rest position, texture coordinate, attributes,
// position in the shadow map.
in vec3 P; in vec3 N; in vec3 R; in vec2 U; in vec4 A; in vec4 S;
out vec4 colour;
#include "light.glsl"
