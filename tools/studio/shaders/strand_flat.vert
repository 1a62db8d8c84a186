#version 330
// The ribbons without light: for shadow, occlusion and label maps.
in vec3 pos; in vec3 tan; in vec4 at; in vec2 wt; in float side;
uniform mat4 bone[3]; uniform mat4 VP; uniform float focal; uniform float pixel; uniform float widen;
void main() {
    mat4 m = bone[0] * wt.x + bone[1] * wt.y + bone[2] * (1. - wt.x - wt.y);
    vec4 w = m * vec4(pos, 1);
    w /= w.w;
    gl_Position = VP * w;
    vec4 ahead = VP * vec4(w.xyz + normalize(mat3(m) * tan) * .01, 1);
    vec2 along = normalize(ahead.xy / ahead.w - gl_Position.xy / gl_Position.w + 1e-9);
    gl_Position.xy += vec2(-along.y, along.x) * side * max(.5 * at.w * widen * focal, pixel * gl_Position.w);
}
